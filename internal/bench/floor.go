// The floor: the calls that the work comes down to, with nothing around them, neither
// names that are checked nor anything that could be undone.

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"

	"github.com/ceph/go-ceph/rados"
	"github.com/ceph/go-ceph/rbd"
	"github.com/google/uuid"
	"github.com/vmdisk/vmdisk"
	"github.com/vmdisk/vmdisk/disk"
	"github.com/vmdisk/vmdisk/domain"
	"golang.org/x/sync/errgroup"
	"libvirt.org/go/libvirt"
)

const (
	// floorWorkers is how many calls into librbd run at once: as many as vmdisk's.
	floorWorkers = 16
	grown        = 10 << 30
	machineName  = "MACHINE-NAME"
	machineUUID  = "00000000-0000-4000-8000-000000000000"
)

// floor is what the command's own contenders, and what prepares others, are.
func floor(args []string) error {
	number := func(i int) int {
		n, err := strconv.Atoi(args[i])
		if err != nil {
			n = -1
		}
		return n
	}
	switch what := strings.Join(args[:1], ""); {
	case what == "clone" && len(args) == 4:
		return onCeph(func(conn *rados.Conn) error { return cloneAll(conn, args[1], args[2], number(3)) })
	case what == "boot" && len(args) == 3:
		return onCeph(func(conn *rados.Conn) error { return bootAll(conn, args[1], number(2)) })
	case what == "empty" && len(args) == 2:
		return onCeph(func(conn *rados.Conn) error { return empty(conn, args[1]) })
	case what == "xml":
		return template(os.Stdout)
	}
	return fmt.Errorf("floor does not know %q", args)
}

// onCeph connects as client.cinder.
func onCeph(do func(*rados.Conn) error) error {
	conn, err := rados.NewConnWithUser("cinder")
	if err != nil {
		return err
	}
	if err := conn.ReadConfigFile(os.Getenv("CEPH_CONF")); err != nil {
		return err
	}
	if err := conn.ParseDefaultConfigEnv(); err != nil {
		return err
	}
	if err := conn.Connect(); err != nil {
		return err
	}
	defer conn.Shutdown()
	return do(conn)
}

// inPool opens a pool.
func inPool(conn *rados.Conn, pool string, do func(*rados.IOContext) error) error {
	io, err := conn.OpenIOContext(pool)
	if err != nil {
		return err
	}
	defer io.Destroy()
	return do(io)
}

// each does something so many times, as many at once as workers.
func each(count int, do func(i int) error) error {
	var group errgroup.Group
	group.SetLimit(floorWorkers)
	for i := range count {
		group.Go(func() error { return do(i) })
	}
	return group.Wait()
}

// cloneAll clones and grows.
func cloneAll(conn *rados.Conn, pool, name string, count int) error {
	return inPool(conn, "images", func(from *rados.IOContext) error {
		return inPool(conn, pool, func(to *rados.IOContext) error {
			return each(count, func(i int) error { return cloneOne(from, to, fmt.Sprintf(name, i)) })
		})
	})
}

func cloneOne(from, to *rados.IOContext, name string) error {
	opts := rbd.NewRbdImageOptions()
	defer opts.Destroy()
	if err := rbd.CloneImage(from, "guest", "snap", to, name, opts); err != nil {
		return err
	}
	img, err := rbd.OpenImage(to, name, rbd.NoSnapshot)
	if err != nil {
		return err
	}
	return errors.Join(img.Resize(grown), img.Close())
}

// bootAll clones, grows, defines and starts. Each has a connection to libvirt of its
// own: calls on one wait for each other.
func bootAll(conn *rados.Conn, name string, count int) error {
	xml, err := os.ReadFile(os.Getenv("DIR") + "/machine.xml")
	if err != nil {
		return err
	}
	return inPool(conn, "images", func(from *rados.IOContext) error {
		return inPool(conn, "vms", func(to *rados.IOContext) error {
			return each(count, func(i int) error {
				id := uuid.NewString()
				if err := cloneOne(from, to, id+"_disk"); err != nil {
					return err
				}
				own := strings.NewReplacer(machineName, fmt.Sprintf("%s-%d", name, i), machineUUID, id).Replace(string(xml))
				return bootOne(own)
			})
		})
	})
}

func bootOne(xml string) error {
	conn, err := libvirt.NewConnect(os.Getenv("LIBVIRT_DEFAULT_URI"))
	if err != nil {
		return err
	}
	defer func() { _, _ = conn.Close() }()
	d, err := conn.DomainDefineXML(xml)
	if err != nil {
		return err
	}
	defer func() { _ = d.Free() }()
	return d.Create()
}

// empty removes all images of a pool.
func empty(conn *rados.Conn, pool string) error {
	return inPool(conn, pool, func(io *rados.IOContext) error {
		names, err := rbd.GetImageNames(io)
		if err != nil {
			return err
		}
		return each(len(names), func(i int) error {
			err := rbd.RemoveImage(io, names[i])
			if errors.Is(err, rbd.ErrNotFound) {
				return nil
			}
			return err
		})
	})
}

// template is a machine for the script and the floor: what vmdisk boot would define.
func template(to io.Writer) error {
	ctx := context.Background()
	h, err := vmdisk.Open(ctx, vmdisk.Config{URI: os.Getenv("LIBVIRT_DEFAULT_URI"), Ceph: disk.Config{Conf: os.Getenv("CEPH_CONF")}})
	if err != nil {
		return err
	}
	defer h.Close()
	s, _, err := h.SetSecret(ctx)
	if err != nil {
		return err
	}
	cluster, err := h.Cluster(ctx)
	if err != nil {
		return err
	}
	monitors, err := cluster.Monitors(ctx)
	if err != nil {
		return err
	}
	xml, err := domain.Machine{Name: machineName, UUID: machineUUID, Type: "qemu", Memory: 128 << 20, VCPUs: 1, Disks: []domain.Disk{{
		Target: "vda", Pool: disk.VMPool, Image: disk.RootDiskName(machineUUID), User: cluster.User(), SecretUUID: s.UUID,
		Monitors: monitors, Conf: cluster.Conf(),
	}}}.XML()
	if err != nil {
		return err
	}
	_, err = io.WriteString(to, xml)
	return err
}
