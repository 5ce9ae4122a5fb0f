// The files that a machine's disks were adopted from, when nobody wants to go back.

package vmdisk

import (
	"context"
	"errors"
	"io/fs"
	"os"

	"github.com/vmdisk/vmdisk/disk"
	"github.com/vmdisk/vmdisk/domain"
	"libvirt.org/go/libvirt"
)

// RemoveAdopted removes the files that a machine's disks were adopted from; there is no
// way back any more. Files below them stay: they may be others' too. It returns those
// that it removed. A file that is not on this host is fs.ErrNotExist, one that somebody
// has open [disk.ErrInUse], a machine that was not adopted [domain.ErrExists].
//
// Similar to: rm.
func (h *Host) RemoveAdopted(ctx context.Context, vm string) ([]string, error) {
	const op = "remove files of"
	e := &ejecting{h: h, op: op, replace: true}
	defer e.end()
	if err := e.prepare(ctx, vm, e.adopted); err != nil {
		return nil, failed(op, vm, err)
	}
	removed := []string{}
	t := h.onMachine(&e.session, op, e.vm)
	t.forward = true
	t.check = func(context.Context) error {
		for _, d := range e.Disks {
			if err := disk.Unused(d.File); err != nil {
				return err
			}
		}
		return nil
	}
	var all []step
	for i := range e.Disks {
		e.one = &e.Disks[i]
		all = append(all, h.forward(&e.session, "forget", e.one.Target+" in "+e.one.File, e.on(actForget)),
			h.forward(&e.session, "remove", e.one.File, e.on(actRemoveFile)))
		removed = append(removed, e.one.File)
	}
	t.steps = steps(all...)
	return removed, h.perform(ctx, t)
}

// forgetFile drops the way back from a machine's definition.
func forgetFile(ctx context.Context, conn *libvirt.Connect, a action) error {
	err := domain.Redefine(ctx, conn, a.VM, func(xml string) (string, bool, error) {
		forgotten, err := domain.Forget(xml, a.To)
		return forgotten, forgotten != xml, err
	})
	if errors.Is(err, domain.ErrNotFound) {
		return nil
	}
	return err
}

// removeFile removes a file of this host; one that is not there is fine.
func removeFile(a action) error {
	err := os.Remove(a.File)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}
