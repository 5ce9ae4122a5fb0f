// The workflows on images that TestInterrupted interrupts.

package vmdisk

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/vmdisk/vmdisk/disk"
)

var imagePairs = []reversible{
	{
		setup: imageFile,
		do:    workflow{name: "import", run: importPair, over: disk.ErrExists},
		undo:  workflow{name: "remove image", run: removeImagePair, over: disk.ErrNotFound},
	},
	{
		setup: func(t *testing.T, h *Host) fixture {
			f := imageFile(t, h)
			must(t, importPair(t.Context(), h, f))
			t.Cleanup(func() { must(t, removeImagePair(context.WithoutCancel(t.Context()), h, f)) })
			return f
		},
		do:   workflow{name: "trash image", run: trashImagePair, over: disk.ErrNotFound},
		undo: workflow{name: "restore image", run: restoreImagePair, over: disk.ErrNotFound},
	},
	{
		setup: func(t *testing.T, h *Host) fixture {
			f := imageFile(t, h)
			must(t, importAndTrashPair(t.Context(), h, f))
			t.Cleanup(func() { must(t, purgeImagePair(context.WithoutCancel(t.Context()), h, f)) })
			return f
		},
		do:   workflow{name: "purge image", run: purgeImagePair, over: disk.ErrNotFound},
		undo: workflow{run: importAndTrashPair},
	},
	{
		setup: func(t *testing.T, h *Host) fixture {
			return fixture{VM: idle(t, h, "captured").Name, Image: name(t)}
		},
		do: workflow{name: "image create", over: disk.ErrExists, run: func(ctx context.Context, h *Host, f fixture) error {
			_, err := h.CreateImage(ctx, f.VM, CreateImageOptions{ID: f.Image})
			return err
		}},
		undo: workflow{run: removeImagePair},
	},
	{
		setup: func(t *testing.T, _ *Host) fixture { return fixture{File: filepath.Join(t.TempDir(), "guest.qcow2")} },
		do:    workflow{name: "export", run: exportPair},
		undo:  workflow{run: exportPair},
	},
}

// imageFile is a file of which an image can be made.
func imageFile(t *testing.T, _ *Host) fixture {
	f := fixture{Image: name(t), File: filepath.Join(t.TempDir(), "small.raw")}
	must(t, os.WriteFile(f.File, []byte("some data that is not zero"), 0o600))
	must(t, os.Truncate(f.File, 1<<20))
	return f
}

func importPair(ctx context.Context, h *Host, f fixture) error {
	_, err := h.ImportImage(ctx, f.File, ImportOptions{ID: f.Image})
	return err
}

func removeImagePair(ctx context.Context, h *Host, f fixture) error {
	return h.RemoveImage(ctx, f.Image)
}

func trashImagePair(ctx context.Context, h *Host, f fixture) error {
	_, err := h.TrashImage(ctx, f.Image, time.Hour)
	return err
}

func restoreImagePair(ctx context.Context, h *Host, f fixture) error {
	_, err := h.RestoreImage(ctx, f.Image)
	return err
}

func purgeImagePair(ctx context.Context, h *Host, f fixture) error {
	_, err := h.PurgeImage(ctx, f.Image, true)
	return err
}

func importAndTrashPair(ctx context.Context, h *Host, f fixture) error {
	if err := importPair(ctx, h, f); err != nil {
		return err
	}
	return trashImagePair(ctx, h, f)
}

// exportPair makes a file again. Whatever became of the export before, there is that
// file or none.
func exportPair(ctx context.Context, h *Host, f fixture) error {
	all, err := os.ReadDir(filepath.Dir(f.File))
	for _, one := range all {
		if one.Name() != filepath.Base(f.File) {
			return fmt.Errorf("left of an export: %s", one.Name())
		}
	}
	if err == nil {
		if err = os.Remove(f.File); errors.Is(err, fs.ErrNotExist) {
			err = nil
		}
	}
	if err == nil {
		_, err = h.ExportImage(ctx, "guest", f.File, ExportOptions{})
	}
	return err
}
