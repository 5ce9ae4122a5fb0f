// Cinder's own driver works on what vmdisk made, and vmdisk on what Cinder made.

package vmdisk

import (
	"bufio"
	"encoding/json"
	"os"
	"os/exec"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/vmdisk/vmdisk/disk"
)

// cinder is Debian's python3-cinder, its RBD driver, at work on the lab.
type cinder struct {
	in  *json.Encoder
	out *bufio.Scanner
}

func startCinder(t *testing.T) *cinder {
	t.Helper()
	cmd := exec.Command("/usr/bin/python3", "testdata/cinder_volume.py", testLab.Conf)
	cmd.Env = append(os.Environ(), "CEPH_ARGS=--log-file= --admin-socket=")
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	must(t, err)
	out, err := cmd.StdoutPipe()
	must(t, err)
	must(t, cmd.Start())
	t.Cleanup(func() {
		must(t, in.Close())
		must(t, cmd.Wait())
	})
	return &cinder{json.NewEncoder(in), bufio.NewScanner(out)}
}

// call is what a call of the driver returned, or the exception's name.
func (c *cinder) call(t *testing.T, args ...any) (result any, exception string) {
	t.Helper()
	must(t, c.in.Encode(args))
	if !c.out.Scan() {
		t.Fatalf("cinder died at %v: %v", args, c.out.Err())
	}
	var answer struct {
		Result any
		Error  string
	}
	must(t, json.Unmarshal(c.out.Bytes(), &answer))
	return answer.Result, answer.Error
}

func (c *cinder) does(t *testing.T, args ...any) any {
	t.Helper()
	result, exception := c.call(t, args...)
	if exception != "" {
		t.Fatalf("cinder %v: %s", args, exception)
	}
	return result
}

func TestCinder(t *testing.T) {
	h := open(t, 0)
	c := startCinder(t)
	was := stateNow(t)
	t.Run("Cinder deletes the chain that vmdisk made", func(t *testing.T) {
		keepFor(t, h, "a", "b", "c", "d", "a.deleted", "b.deleted")
		a, err := h.CreateVolume(t.Context(), "a", disk.GiB)
		must(t, err)
		write(t, a, "kept")
		cloned(t, h, CloneOptions{ID: "b", Volume: "a"})
		cl := cloned(t, h, CloneOptions{ID: "c", Volume: "b"})
		for id, want := range map[string]int{"a": 0, "b": 1, "c": 2} {
			if got := c.does(t, "depth", id); got != float64(want) {
				t.Errorf("Cinder says that %s is %v deep, not %d", id, got, want)
			}
			if d, err := h.Volume(t.Context(), id); err != nil || d.Depth != want {
				t.Errorf("%s is %d deep, %v", id, d.Depth, err)
			}
		}
		c.does(t, "delete", "a") // kept, for b
		c.does(t, "delete", "b")
		reads(t, cl, "kept")
		cloned(t, h, CloneOptions{ID: "d", Volume: "c", Flatten: true})
		c.does(t, "delete", "d")
		c.does(t, "delete", "c") // and with it all that it hung on
		was.unchanged(t)
	})
	t.Run("vmdisk removes the chain that Cinder made", func(t *testing.T) {
		keepFor(t, h, "a", "b", "c", "a.deleted", "b.deleted")
		c.does(t, "create", "a", 1)
		write(t, disk.Volume{Pool: "volumes", Image: "volume-a"}, "kept")
		c.does(t, "clone", "a", "b")
		c.does(t, "clone", "b", "c")
		c.does(t, "delete", "a")
		c.does(t, "delete", "b")
		all, err := h.Volumes(t.Context())
		must(t, err)
		nobody := []disk.Watcher{}
		want := []disk.Volume{
			{ID: "a.deleted", Pool: "volumes", Image: "volume-a.deleted", Size: disk.GiB, Used: 4 << 20, Deleted: true, Watchers: nobody},
			{ID: "b.deleted", Pool: "volumes", Image: "volume-b.deleted", Size: disk.GiB, Deleted: true, Parent: "volumes/volume-a.deleted@volume-b.clone_snap", Watchers: nobody},
			{ID: "c", Pool: "volumes", Image: "volume-c", Size: disk.GiB, Parent: "volumes/volume-b.deleted@volume-c.clone_snap", Watchers: nobody},
		}
		if diff := cmp.Diff(want, all); diff != "" {
			t.Error(diff)
		}
		if d, err := h.Volume(t.Context(), "c"); err != nil || d.Depth != 2 {
			t.Errorf("c is %d deep, %v", d.Depth, err)
		}
		reads(t, all[2], "kept")
		must(t, h.RemoveVolume(t.Context(), "c"))
		was.unchanged(t)
	})
	t.Run("flattening frees what Cinder kept", func(t *testing.T) {
		keepFor(t, h, "a", "b", "a.deleted")
		c.does(t, "create", "a", 1)
		c.does(t, "clone", "a", "b")
		c.does(t, "delete", "a")
		v, err := h.FlattenVolume(t.Context(), "b")
		if err != nil || v.Parent != "" {
			t.Fatalf("%+v, %v", v, err)
		}
		if all, err := h.Volumes(t.Context()); err != nil || len(all) != 1 {
			t.Errorf("there are %+v, %v", all, err)
		}
		c.does(t, "delete", "b")
		was.unchanged(t)
	})
	t.Run("snapshots", func(t *testing.T) {
		keepFor(t, h, "a", "b", "e")
		v, err := h.CreateVolume(t.Context(), "a", disk.GiB)
		must(t, err)
		write(t, v, "then")
		_, err = h.CreateVolumeSnapshot(t.Context(), "a", "ours")
		must(t, err)
		write(t, v, "now!")
		c.does(t, "revert", "a", "ours")
		reads(t, v, "then")
		c.does(t, "from-snapshot", "a", "ours", "b")
		if _, exception := c.call(t, "delete-snapshot", "a", "ours"); exception != "SnapshotIsBusy" {
			t.Errorf("Cinder deletes a snapshot with clones: %q", exception)
		}
		c.does(t, "extend", "b", 2)
		if d, err := h.Volume(t.Context(), "b"); err != nil || d.Size != 2*disk.GiB || d.Parent != "volumes/volume-a@snapshot-ours" {
			t.Errorf("%+v, %v", d, err)
		}
		must(t, h.RemoveVolume(t.Context(), "b"))
		c.does(t, "delete-snapshot", "a", "ours")

		c.does(t, "snapshot", "a", "theirs")
		write(t, v, "now!")
		_, err = h.RollbackVolume(t.Context(), "theirs")
		must(t, err)
		reads(t, v, "then")
		must(t, h.RemoveVolumeSnapshot(t.Context(), "theirs"))
		c.does(t, "delete", "a")
		was.unchanged(t)
	})
}
