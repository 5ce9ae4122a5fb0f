// Booting from a file or a URL: the disk reads from there until it is filled.

package vmdisk

import (
	"context"
	"errors"

	"github.com/vmdisk/vmdisk/disk"
)

// openOrigin judges what the disk is to be read from, before anything is made.
func (b *boot) openOrigin(ctx context.Context) (err error) {
	if !disk.IsOrigin(b.o.Image) {
		return nil
	}
	b.origin, err = disk.OpenOrigin(ctx, b.o.Image, disk.SourceOptions{Format: b.o.Format})
	if err == nil && b.o.Size != 0 && b.o.Size < b.origin.Size {
		err = &disk.Error{Object: b.origin.Where, Kind: disk.ErrInvalid,
			Reason: "its size is " + disk.FormatSize(b.origin.Size) + ", a disk of " + disk.FormatSize(b.o.Size) + " would be smaller"}
	}
	return err
}

// rootSteps make the root disk.
func (b *boot) rootSteps() []step {
	if b.origin.Where == "" {
		return []step{b.cloneStep(b.root)}
	}
	steps := []step{{name: "link", detail: says(b.origin.Where + " → " + b.root.String()), do: b.link,
		back: []action{{Verb: actRemove, Image: b.root.String()}}}}
	if b.o.Size > b.origin.Size {
		grown := disk.FormatSize(b.origin.Size) + " → " + disk.FormatSize(b.o.Size)
		steps = append(steps, step{name: "grow", detail: says(grown), do: func(ctx context.Context) error {
			_, err := b.cluster.Grow(ctx, b.root, b.o.Size)
			return err
		}})
	}
	return steps
}

func (b *boot) link(ctx context.Context) error { return b.cluster.FillFrom(ctx, b.origin, b.root) }

// unreadable says of a machine that does not start what may be the cause: QEMU reads a
// file as its own user, and under a profile that does not know of it.
func (b *boot) unreadable(err error) error {
	var e *Error
	if b.origin.Where != "" && !disk.IsURL(b.origin.Where) && errors.As(err, &e) && e.Step == "start" && e.Next == "" {
		e.Next = "may QEMU on " + b.host + " read " + b.origin.Where + "? It does so as a user of its own and, with\n" +
			"  AppArmor or SELinux, hardly at all; else:  vmdisk image import, or a web server"
	}
	return err
}
