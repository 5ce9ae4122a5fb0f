// Hotplug gives a running machine a new volume, and takes it away again when the
// guest has let go of it.
//
//	go run ./examples/hotplug web1
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
	"github.com/vmdisk/vmdisk/domain"
)

func main() {
	log.SetFlags(0)
	if len(os.Args) != 2 {
		log.Fatal("usage: hotplug VM")
	}
	if err := run(context.Background(), os.Args[1]); err != nil {
		log.Fatal(err)
	}
}

func run(ctx context.Context, name string) (err error) {
	host, err := vmdisk.Open(ctx, vmdisk.Config{
		Ceph: disk.Config{Conf: os.Getenv("CEPH_CONF")},
		URI:  os.Getenv("LIBVIRT_DEFAULT_URI"),
	})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, host.Close()) }()

	volume, err := host.CreateVolume(ctx, "", disk.GiB)
	if err != nil {
		return err
	}
	at, err := host.Attach(ctx, name, volume.ID, vmdisk.AttachOptions{})
	if err != nil {
		return errors.Join(err, host.RemoveVolume(ctx, volume.ID))
	}
	fmt.Printf("the guest has it as /dev/disk/by-id/virtio-%.20s\n", at.Serial)

	_, err = host.Detach(ctx, name, volume.ID)
	if errors.Is(err, domain.ErrPending) {
		return fmt.Errorf("still the guest's, try later: %w", err)
	}
	if err != nil {
		return err
	}
	fmt.Printf("%s let go of %s\n", name, at.Target)
	return host.RemoveVolume(ctx, volume.ID)
}
