package vmdisk

import (
	"context"
	"errors"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/ceph/go-ceph/rbd"
	"github.com/vmdisk/vmdisk/disk"
)

// write puts a text at the beginning of a volume.
func write(t testing.TB, v disk.Volume, text string) {
	t.Helper()
	onImage(t, v.Name(), func(img *rbd.Image) error {
		_, err := img.WriteAt([]byte(text), 0)
		return err
	})
}

func reads(t testing.TB, v disk.Volume, want string) {
	t.Helper()
	onImage(t, v.Name(), func(img *rbd.Image) error {
		buf := make([]byte, len(want))
		if _, err := img.ReadAt(buf, 0); err != nil {
			return err
		}
		if string(buf) != want {
			t.Errorf("%s begins with %q, not %q", v.Name(), buf, want)
		}
		return nil
	})
}

// keepFor removes a volume when the test ends, if it is there.
func keepFor(t testing.TB, h *Host, ids ...string) {
	t.Cleanup(func() {
		for _, id := range slices.Backward(ids) {
			err := h.RemoveVolume(context.WithoutCancel(t.Context()), id)
			if err != nil && !errors.Is(err, disk.ErrNotFound) {
				t.Error(err)
			}
		}
	})
}

// cloned is a volume made from something, removed when the test ends.
func cloned(t testing.TB, h *Host, o CloneOptions) disk.Volume {
	t.Helper()
	v, err := h.CloneVolume(t.Context(), o)
	must(t, err)
	keepFor(t, h, v.ID)
	return v
}

func snapshotted(t testing.TB, h *Host, volume, id string) VolumeSnapshot {
	t.Helper()
	s, err := h.CreateVolumeSnapshot(t.Context(), volume, id)
	must(t, err)
	t.Cleanup(func() {
		err := h.RemoveVolumeSnapshot(context.WithoutCancel(t.Context()), volume+"@"+id)
		if err != nil && !errors.Is(err, disk.ErrNotFound) {
			t.Error(err)
		}
	})
	return s
}

// refused says whether an error is of a kind, has a text, and what to type next.
func refused(t *testing.T, err, kind error, text, next string) {
	t.Helper()
	var e *Error
	if !errors.Is(err, kind) || !errors.As(err, &e) || !strings.Contains(err.Error(), text) || !strings.Contains(e.Next, next) {
		t.Errorf("error is %v, want %v with %q and next %q: %+v", err, kind, text, next, e)
	}
}

func TestRollback(t *testing.T) {
	h := open(t, 0)
	v := volume(t, h)
	write(t, v, "then")
	snapshotted(t, h, v.ID, "then")
	write(t, v, "now!")
	snapshotted(t, h, v.ID, "now")
	_, err := h.ResizeVolume(t.Context(), v.ID, VolumeSize{Size: 2 * disk.GiB})
	must(t, err)
	v, err = h.RollbackVolume(t.Context(), v.ID+"@then")
	must(t, err)
	if v.Size != 2*disk.GiB {
		t.Errorf("it is %s", disk.FormatSize(v.Size))
	}
	reads(t, v, "then")
	if _, err = h.RollbackVolume(t.Context(), "now"); err != nil {
		t.Fatal(err)
	}
	reads(t, v, "now!")

	// One that is cut short says so, and is finished by a repair, or by running it again.
	ctx, cancel := context.WithCancel(t.Context())
	c := config(0)
	c.Observe = func(e Event) {
		if e.Kind == Progress {
			cancel()
		}
	}
	cut, err := Open(t.Context(), c)
	must(t, err)
	defer func() { must(t, cut.Close()) }()
	_, err = cut.RollbackVolume(ctx, v.ID+"@then")
	var e *Error
	if !errors.Is(err, context.Canceled) || !errors.As(err, &e) || len(e.Left) != 1 || !strings.Contains(e.Next, "rollback "+v.ID+"@then") {
		t.Errorf("cancelled: %v, %+v", err, e)
	}
	r, err := h.Repair(t.Context(), RepairOptions{})
	if err != nil || len(r.Operations) != 1 || !r.Operations[0].Done {
		t.Errorf("repaired is %+v, %v", r.Operations, err)
	}
	reads(t, v, "then")
	onImage(t, v.Name(), func(*rbd.Image) error {
		_, err := h.RollbackVolume(t.Context(), v.ID+"@now")
		refused(t, err, disk.ErrInUse, "open by", "")
		return nil
	})
}

func TestResizeVolume(t *testing.T) {
	h := open(t, 0)
	v := volume(t, h)
	size := func(to VolumeSize, want int64) {
		t.Helper()
		v, err := h.ResizeVolume(t.Context(), v.ID, to)
		if err != nil || v.Size != want*disk.GiB {
			t.Errorf("%+v gives %s, %v", to, disk.FormatSize(v.Size), err)
		}
	}
	size(VolumeSize{Size: 2 * disk.GiB}, 2)
	size(VolumeSize{Size: 2 * disk.GiB}, 2)
	size(VolumeSize{Size: disk.GiB, By: true}, 3)
	size(VolumeSize{Size: disk.GiB, AllowShrink: true}, 1)
	size(VolumeSize{Size: 2 * disk.GiB}, 2)
	was := stateNow(t)
	for _, to := range []VolumeSize{{Size: 512 << 20, By: true}, {Size: 1}, {Size: 0, AllowShrink: true}, {Size: -2 * disk.GiB, By: true}} {
		_, err := h.ResizeVolume(t.Context(), v.ID, to)
		refused(t, err, disk.ErrInvalid, "GiB", "")
	}
	_, err := h.ResizeVolume(t.Context(), v.ID, VolumeSize{Size: disk.GiB})
	refused(t, err, disk.ErrInvalid, "shrinking", "")
	was.unchanged(t)
}

// Two runs at once on one volume: each is done or refused, none half.
func TestVolumeRaces(t *testing.T) {
	h := open(t, 0)
	v := volume(t, h)
	was := stateNow(t)
	both := func(work func() error, lost ...error) (won int) {
		t.Helper()
		var group sync.WaitGroup
		errs := make([]error, 4)
		for i := range errs {
			group.Go(func() { errs[i] = work() })
		}
		group.Wait()
		for _, err := range errs {
			var e *Error
			switch {
			case err == nil:
				won++
			case !slices.ContainsFunc(lost, func(kind error) bool { return errors.Is(err, kind) }) || !errors.As(err, &e) || len(e.Left) > 0:
				t.Errorf("one of them: %v", err)
			}
		}
		if won == 0 {
			t.Error("none was done")
		}
		return won
	}
	grown := both(func() error {
		_, err := h.ResizeVolume(t.Context(), v.ID, VolumeSize{Size: disk.GiB, By: true})
		return err
	}, disk.ErrInUse)
	if now, err := h.Volume(t.Context(), v.ID); err != nil || now.Size != int64(1+grown)*disk.GiB {
		t.Errorf("grown %d times it is %s, %v", grown, disk.FormatSize(now.Size), err)
	}
	_, err := h.ResizeVolume(t.Context(), v.ID, VolumeSize{Size: disk.GiB, AllowShrink: true})
	must(t, err)
	if both(func() error { _, err := h.CreateVolumeSnapshot(t.Context(), v.ID, "race"); return err }, disk.ErrExists, disk.ErrInUse) != 1 {
		t.Error("several made one snapshot")
	}
	must(t, h.RemoveVolumeSnapshot(t.Context(), v.ID+"@race"))
	if both(func() error { _, err := h.CloneVolume(t.Context(), CloneOptions{ID: "race", Volume: v.ID}); return err }, disk.ErrExists, disk.ErrInUse) != 1 {
		t.Error("several made one clone")
	}
	reads(t, disk.Volume{Pool: "volumes", Image: "volume-race"}, "\x00")
	both(func() error { return h.RemoveVolume(t.Context(), "race") }, disk.ErrNotFound, disk.ErrInUse)
	was.unchanged(t)
}

// A second command on a volume says who is at work on it, or waits for them.
func TestOneAtATime(t *testing.T) {
	h, other := open(t, 0), open(t, 1)
	c := config(1)
	c.Wait = true
	asked := make(chan struct{})
	c.Observe = func(e Event) {
		if e.Kind == Note && strings.Contains(e.Detail, "waiting for snapshot volumes/volume-") {
			close(asked)
		}
	}
	patient, err := Open(t.Context(), c)
	must(t, err)
	t.Cleanup(func() { must(t, patient.Close()) })
	v := volume(t, h)
	src := cloned(t, h, CloneOptions{Volume: v.ID})

	at, goOn := make(chan struct{}), make(chan struct{})
	h.fault = func(_, step string, when phase) error {
		if step == "protect" && when == before {
			close(at)
			<-goOn
		}
		return nil
	}
	var group sync.WaitGroup
	group.Go(func() {
		_, err := h.CreateVolumeSnapshot(t.Context(), v.ID, "first")
		if err != nil {
			t.Error(err)
		}
	})
	<-at
	for name, work := range map[string]func() error{
		"resize": func() error {
			_, err := other.ResizeVolume(t.Context(), v.ID, VolumeSize{Size: disk.GiB, By: true})
			return err
		},
		"clone":   func() error { _, err := other.CloneVolume(t.Context(), CloneOptions{Volume: v.ID}); return err },
		"flatten": func() error { _, err := other.FlattenVolume(t.Context(), src.ID); return err }, // drops what it hangs on
	} {
		var e *disk.Error
		err := work()
		if !errors.Is(err, disk.ErrInUse) || !errors.As(err, &e) || len(e.Holders) != 1 || !strings.HasPrefix(e.Holders[0], "snapshot "+v.Name().String()+" by pid ") {
			t.Errorf("%s: %v", name, err)
		}
	}
	group.Go(func() {
		if err := patient.RemoveVolumeSnapshot(t.Context(), v.ID+"@first"); err != nil {
			t.Error(err)
		}
	})
	<-asked
	close(goOn)
	group.Wait()
	if all, err := h.VolumeSnapshots(t.Context(), v.ID); err != nil || len(all) != 1 {
		t.Errorf("snapshots are %+v, %v", all, err)
	}
}

// A pool over its quota is an error and not a wait, and what is half made goes.
func TestVolumeOverQuota(t *testing.T) {
	h := open(t, 0)
	src := volume(t, h)
	snapshotted(t, h, src.ID, "empty")
	onImage(t, src.Name(), func(img *rbd.Image) error {
		_, err := img.WriteAt(make([]byte, 1<<20), 0)
		return err
	})
	clone := cloned(t, h, CloneOptions{Image: "guest"})
	quota(t, "volumes", "1")
	t.Cleanup(func() { quota(t, "volumes", "0") })
	was := stateNow(t)
	// The cluster notices some seconds later.
	ctx := waiting(t)
	for {
		v, err := h.CreateVolume(ctx, "", disk.GiB)
		if err != nil {
			refused(t, err, disk.ErrNoSpace, "", "")
			break
		}
		must(t, h.RemoveVolume(ctx, v.ID))
	}
	_, err := h.FlattenVolume(ctx, clone.ID)
	refused(t, err, disk.ErrNoSpace, "", "")
	_, err = h.CloneVolume(ctx, CloneOptions{Volume: src.ID, Flatten: true})
	refused(t, err, disk.ErrNoSpace, "", "")
	_, err = h.CloneVolume(ctx, CloneOptions{Image: "guest"})
	refused(t, err, disk.ErrNoSpace, "", "")
	if _, err = h.RollbackVolume(ctx, src.ID+"@empty"); err != nil && !errors.Is(err, disk.ErrNoSpace) {
		t.Errorf("roll back: %v", err)
	}
	was.unchanged(t)
	must(t, h.RemoveVolume(ctx, clone.ID)) // removing is how it gets space
	quota(t, "volumes", "0")
	for { // and some seconds later again
		v, err := h.CreateVolume(ctx, "", disk.GiB)
		if err == nil {
			must(t, h.RemoveVolume(ctx, v.ID))
			return
		}
		if !errors.Is(err, disk.ErrNoSpace) {
			t.Fatal(err)
		}
	}
}

// quota limits a pool; "0" is no limit.
func quota(t testing.TB, pool, bytes string) {
	t.Helper()
	out, err := exec.Command("ceph", "-c", testLab.Conf, "--id", "admin", "--log-file=", "--admin-socket=",
		"osd", "pool", "set-quota", pool, "max_bytes", bytes).CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
}
