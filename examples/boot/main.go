// Boot imports an image, boots a machine from a clone of it, and tells each step
// as it happens.
//
//	go run ./examples/boot web1 guest.qcow2
//
// CEPH_CONF and LIBVIRT_DEFAULT_URI say where.
package main

import (
	"context"
	"errors"
	"fmt"
	"log"
	"os"

	"github.com/vmdisk/vmdisk"
	"github.com/vmdisk/vmdisk/disk"
)

func main() {
	log.SetFlags(0)
	if len(os.Args) != 3 {
		log.Fatal("usage: boot VM FILE")
	}
	if err := run(context.Background(), os.Args[1], os.Args[2]); err != nil {
		log.Fatal(err)
	}
}

func run(ctx context.Context, name, file string) (err error) {
	host, err := vmdisk.Open(ctx, vmdisk.Config{
		Ceph: disk.Config{Conf: os.Getenv("CEPH_CONF")},
		URI:  os.Getenv("LIBVIRT_DEFAULT_URI"),
		Observe: func(e vmdisk.Event) {
			if e.Kind == vmdisk.Done {
				log.Printf("%-8s %s (%v)", e.Step, e.Detail, e.Elapsed)
			}
		},
	})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, host.Close()) }()

	image, err := host.ImportImage(ctx, file, vmdisk.ImportOptions{ID: name + "-image"})
	if err != nil {
		return err
	}
	vm, err := host.Boot(ctx, name, vmdisk.BootOptions{
		Image:  image.ID,
		Size:   image.Size + 64<<20,
		Memory: 128 << 20,
	})
	if err != nil {
		return err
	}
	fmt.Printf("%s is %s on %s with %s of disk\n", vm.Name, vm.State, vm.Host, disk.FormatSize(vm.Disks[0].Size))
	return nil
}
