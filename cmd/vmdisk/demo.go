// vmdisk lab demo: the main job, shown on a real lab and ending in proof.

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"regexp"
	"strings"
	"time"

	"github.com/vmdisk/vmdisk"
	"github.com/vmdisk/vmdisk/disk"
	"github.com/vmdisk/vmdisk/lab"
)

// demoStep is how long a guest may take for anything that the demo waits for.
const demoStep = 2 * time.Minute

// demo tells the story: what it types, what that prints, and what the guest
// says to it.
type demo struct {
	c   *command
	lab *lab.Lab
}

func runDemo(ctx context.Context, c *command) error {
	if _, err := c.arguments(); err != nil {
		return err
	}
	begin := time.Now()
	err := inLab(ctx, c, func(l *lab.Lab) error {
		for _, pair := range l.Env() {
			name, value, _ := strings.Cut(pair, "=")
			if err := os.Setenv(name, value); err != nil {
				return err
			}
		}
		d := &demo{c, l}
		if err := d.tell(ctx); err != nil {
			return fmt.Errorf("demo: %w", err)
		}
		return nil
	})
	if err == nil {
		d := &demo{c: c}
		d.say("The lab is gone, nothing is left. It took %.0f s.", time.Since(begin).Seconds())
	}
	return err
}

func (d *demo) tell(ctx context.Context) error {
	source, dest := d.lab.Hosts[0], d.lab.Hosts[1]

	d.say("A guest's image goes into Ceph, verified and with the snapshot that disks are cloned from.")
	if err := d.types(ctx, "image", "import", d.lab.Guest, "--name", "guest"); err != nil {
		return err
	}
	d.say("A machine boots from a clone of it. Its guest writes numbered blocks, each flushed, and prints\nthe number when the write is acknowledged.")
	if err := d.types(ctx, "boot", "web1", "--image", "guest", "--size", "256M", "--memory", "128M"); err != nil {
		return err
	}
	console := d.lab.Console(source, "web1")
	if err := d.hears(ctx, console, source, `oracle: ready.*`, `ack vda \d+`); err != nil {
		return err
	}
	d.say("A volume is made and plugged in. The guest sees it and writes there too.")
	if err := d.types(ctx, "volume", "create", "--size", "1G", "data"); err != nil {
		return err
	}
	if err := d.types(ctx, "attach", "web1", "data"); err != nil {
		return err
	}
	if err := d.hears(ctx, console, source, `disk vdb come.*`, `ack vdb \d+`); err != nil {
		return err
	}
	d.say("The machine moves to the second host while it writes.")
	if err := d.types(ctx, "migrate", "web1", dest.URI); err != nil {
		return err
	}
	there := d.lab.Console(dest, "web1")
	if err := d.hears(ctx, there, dest, `ack vda \d+`, `ack vdb \d+`); err != nil {
		return err
	}
	return d.prove(ctx, console, there)
}

// prove cuts the power and looks in Ceph for every number that was printed.
func (d *demo) prove(ctx context.Context, consoles ...*lab.Console) error {
	remote := []string{"--connect", d.lab.Hosts[1].URI}
	d.say("Its power is cut. Is every write that it was told of in Ceph?")
	if err := d.types(ctx, append([]string{"stop", "web1", "--force"}, remote...)...); err != nil {
		return err
	}
	id, err := d.uuid(ctx, remote[1])
	if err != nil {
		return err
	}
	for _, has := range []struct{ target, image string }{{"vda", "vms/" + id + "_disk"}, {"vdb", "volumes/volume-data"}} {
		var acked uint64
		for _, c := range consoles {
			n, err := c.Acked(has.target)
			if err != nil {
				return err
			}
			acked = max(acked, n)
		}
		blocks, err := d.lab.Blocks(ctx, has.image)
		if err != nil {
			return err
		}
		if err := blocks.Check(acked); err != nil {
			return err
		}
		d.say("%s: the guest was told of %d writes, the last in Ceph is %d, none is missing.", has.target, acked, blocks.Highest)
	}
	d.say("And away with it all.")
	for _, words := range [][]string{append([]string{"rm", "web1"}, remote...), {"volume", "rm", "data"}, {"image", "rm", "guest"}} {
		if err := d.types(ctx, words...); err != nil {
			return err
		}
	}
	return nil
}

// uuid asks where the machine is now.
func (d *demo) uuid(ctx context.Context, uri string) (id string, err error) {
	h, err := vmdisk.Open(ctx, vmdisk.Config{Ceph: disk.Config{Conf: d.lab.Conf}, URI: uri})
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, h.Close()) }()
	vm, err := h.VM(ctx, "web1")
	return vm.UUID, err
}

// types runs a command of vmdisk as if it had been typed.
func (d *demo) types(ctx context.Context, words ...string) error {
	fmt.Fprintf(d.c.ui.err, "$ vmdisk %s\n", strings.Join(words, " "))
	if code := run(ctx, words, d.c.ui.out, d.c.ui.err); code != exitOK {
		return fmt.Errorf("vmdisk %s: exit code %d", words[0], code)
	}
	return nil
}

// hears waits for what the guest says and repeats it.
func (d *demo) hears(ctx context.Context, console *lab.Console, on *lab.Host, lines ...string) error {
	ctx, cancel := context.WithTimeout(ctx, demoStep)
	defer cancel()
	for _, line := range lines {
		said, err := console.Wait(ctx, regexp.MustCompile(`(?m)^`+line+`$`))
		if err != nil {
			return err
		}
		fmt.Fprintf(d.c.ui.err, "  guest on %s: %s\n", on.Name, said[0])
	}
	return nil
}

func (d *demo) say(format string, args ...any) {
	fmt.Fprintf(d.c.ui.err, "\n"+format+"\n", args...)
}
