// Migrate moves a running machine to another host; Ctrl-C leaves it where it is.
//
//	go run ./examples/migrate web1 qemu+tcp://compute2/system
//
// CEPH_CONF and LIBVIRT_DEFAULT_URI say from where.
package main

import (
	"context"
	"errors"
	"fmt"
	"log"
	"os"
	"os/signal"
	"time"

	"github.com/vmdisk/vmdisk"
	"github.com/vmdisk/vmdisk/disk"
)

func main() {
	log.SetFlags(0)
	if len(os.Args) != 3 {
		log.Fatal("usage: migrate VM URI")
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	err := run(ctx, os.Args[1], os.Args[2])
	stop()
	if err != nil {
		log.Fatal(err)
	}
}

func run(ctx context.Context, name, dest string) (err error) {
	host, err := vmdisk.Open(ctx, vmdisk.Config{
		Ceph: disk.Config{Conf: os.Getenv("CEPH_CONF")},
		URI:  os.Getenv("LIBVIRT_DEFAULT_URI"),
		Observe: func(e vmdisk.Event) {
			if e.Kind == vmdisk.Progress {
				log.Printf("%s of %s", disk.FormatSize(e.Bytes), disk.FormatSize(e.Total))
			}
		},
	})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, host.Close()) }()

	found, err := host.CheckMigration(ctx, name, dest, vmdisk.MigrateOptions{})
	if err != nil {
		return err
	}
	for _, c := range found.Checks {
		log.Printf("%s: %s", c.Name, c.Detail)
	}
	m, err := host.Migrate(ctx, name, dest, vmdisk.MigrateOptions{NoCheck: true})
	if err != nil {
		return err
	}
	fmt.Printf("%s went from %s to %s and stood still for %v\n", m.VM, m.From, m.To, m.Downtime.Round(time.Millisecond))
	return nil
}
