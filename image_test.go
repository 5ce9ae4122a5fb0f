package vmdisk

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/vmdisk/vmdisk/disk"
)

// smallImage is an image of 1 MiB that is removed when the test ends.
func smallImage(t *testing.T, h *Host) string {
	t.Helper()
	id := name(t)
	file := filepath.Join(t.TempDir(), "small.raw")
	must(t, os.WriteFile(file, []byte("small"), 0o600))
	must(t, os.Truncate(file, 1<<20))
	_, err := h.ImportImage(t.Context(), file, ImportOptions{ID: id})
	must(t, err)
	t.Cleanup(func() {
		if err := h.RemoveImage(context.WithoutCancel(t.Context()), id); err != nil && !errors.Is(err, disk.ErrNotFound) {
			t.Error(err)
		}
	})
	return id
}

// An image goes into the trash and comes back as it was; one with clones does not
// go; one that is to be kept is not purged.
func TestTrashImage(t *testing.T) {
	h := open(t, 0)
	id := smallImage(t, h)
	d, err := h.CreateDisk(t.Context(), DiskOptions{Image: id})
	must(t, err)
	if _, err := h.TrashImage(t.Context(), id, time.Hour); !errors.Is(err, disk.ErrHasClones) || !strings.Contains(err.Error(), d.Image) {
		t.Errorf("error is %v", err)
	}
	if err := h.RemoveImage(t.Context(), id); !errors.Is(err, disk.ErrHasClones) || !strings.Contains(err.Error(), d.Image) {
		t.Errorf("error is %v", err)
	}
	must(t, h.RemoveDisk(t.Context(), d.Name().String()))

	was, err := h.Image(t.Context(), id)
	must(t, err)
	gone, err := h.TrashImage(t.Context(), id, time.Hour)
	if err != nil || gone.Image != id || gone.Expires.Sub(gone.Deleted).Round(time.Minute) != time.Hour {
		t.Errorf("trashed is %+v, %v", gone, err)
	}
	var e *Error
	if _, err := h.Image(t.Context(), id); !errors.Is(err, disk.ErrNotFound) || !errors.As(err, &e) || !strings.Contains(e.Next, "image restore") {
		t.Errorf("error is %v, %+v", err, e)
	}
	if _, err := h.PurgeImage(t.Context(), id, false); !errors.Is(err, disk.ErrPermission) || !strings.Contains(err.Error(), "kept until") {
		t.Errorf("error is %v", err)
	}
	if now, err := h.RestoreImage(t.Context(), id); err != nil || now != was {
		t.Errorf("restored is %+v, %v; it was %+v", now, err, was)
	}
	for range 2 { // the one that was deleted last comes back, the older stays
		_, err = h.TrashImage(t.Context(), id, 0)
		must(t, err)
		_, err = h.PurgeImage(t.Context(), id, false)
		must(t, err)
		if _, err := h.RestoreImage(t.Context(), id); !errors.Is(err, disk.ErrNotFound) {
			t.Errorf("error is %v", err)
		}
		id = smallImage(t, h)
	}
	if _, err := h.TrashImage(t.Context(), "no-such", 0); !errors.Is(err, disk.ErrNotFound) {
		t.Errorf("error is %v", err)
	}
	if _, err := h.TrashImage(t.Context(), id, -1); !errors.Is(err, disk.ErrInvalid) {
		t.Errorf("error is %v", err)
	}
}

// Two removals of one image at once: exactly one does it, the other finds nothing or
// is told who does.
func TestRemoveImageTwiceAtOnce(t *testing.T) {
	id := smallImage(t, open(t, 0))
	errs := make(chan error, 2)
	for range 2 {
		h := open(t, 0)
		go func() { errs <- h.RemoveImage(t.Context(), id) }()
	}
	done := 0
	for range 2 {
		switch err := <-errs; {
		case err == nil:
			done++
		case errors.Is(err, disk.ErrInUse):
			if !strings.Contains(err.Error(), fmt.Sprintf("by pid %d on ", os.Getpid())) {
				t.Errorf("it does not say who: %v", err)
			}
		case !errors.Is(err, disk.ErrNotFound):
			t.Error(err)
		}
	}
	if done != 1 {
		t.Errorf("%d did it", done)
	}
}

// Capacity is what ceph says, and what Nova makes of it.
func TestCapacity(t *testing.T) {
	h := open(t, 0)
	all, err := h.Capacity(t.Context())
	must(t, err)
	cmd := exec.Command("ceph", "-c", testLab.Conf, "--id", "cinder", "df", "--format", "json")
	cmd.Env = append(os.Environ(), "CEPH_ARGS=--log-file= --admin-socket=")
	out, err := cmd.Output()
	must(t, err)
	var df struct {
		Stats struct {
			Total int64 `json:"total_bytes"`
		}
		Pools []struct{ Name string }
	}
	must(t, json.Unmarshal(out, &df))
	if all.Total != df.Stats.Total || all.Used <= 0 || all.Used+all.Available != all.Total {
		t.Errorf("capacity is %+v, ceph's %+v", all, df)
	}
	if len(all.Pools) != 4 {
		t.Errorf("pools are %+v", all.Pools)
	}
	for _, p := range all.Pools {
		if p.Total != all.Total || p.Available <= 0 || p.Available > all.Available || p.Stored > p.Used+1<<20 {
			t.Errorf("%+v of %+v", p, all)
		}
	}
	if _, err := h.Capacity(t.Context(), "no-such-pool"); !errors.Is(err, disk.ErrNotFound) || !strings.Contains(err.Error(), "no-such-pool") {
		t.Errorf("error is %v", err)
	}
	if _, err := h.Capacity(t.Context(), "a/b"); !errors.Is(err, disk.ErrInvalid) {
		t.Errorf("error is %v", err)
	}
}
