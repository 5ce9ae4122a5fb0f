package vmdisk

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/ceph/go-ceph/rados"
	"github.com/ceph/go-ceph/rbd"
	"github.com/vmdisk/vmdisk/disk"
)

// dropVolume removes a volume with all of its backups.
func dropVolume(t testing.TB, h *Host, id string) {
	t.Helper()
	ctx := context.WithoutCancel(t.Context())
	all, err := h.Backups(ctx, id)
	if err != nil {
		t.Error(err)
	}
	for _, b := range all {
		if _, err := h.RemoveBackup(ctx, b.ID); err != nil {
			t.Error(err)
		}
	}
	if err := h.RemoveVolume(ctx, id); err != nil && !errors.Is(err, disk.ErrNotFound) {
		t.Error(err)
	}
}

// onImage runs f with an image opened as the admin, who may do everything.
func onImage(t testing.TB, n disk.Name, f func(*rbd.Image) error) {
	t.Helper()
	onImageAt(t, testLab.Conf, n, f)
}

// onImageAt is onImage in any cluster.
func onImageAt(t testing.TB, conf string, n disk.Name, f func(*rbd.Image) error) {
	t.Helper()
	withCephAt(t, conf, func(conn *rados.Conn) {
		io, err := conn.OpenIOContext(n.Pool)
		must(t, err)
		defer io.Destroy()
		img, err := rbd.OpenImage(io, n.Image, rbd.NoSnapshot)
		must(t, err)
		defer img.Close()
		must(t, f(img))
	})
}

// writeVolume writes what f says, as somebody else would.
func writeVolume(t testing.TB, n disk.Name, f func(write func(off int64, p []byte))) error {
	onImage(t, n, func(img *rbd.Image) error {
		var errs []error
		f(func(off int64, p []byte) {
			_, err := img.WriteAt(p, off)
			errs = append(errs, err)
		})
		return errors.Join(append(errs, img.Flush())...)
	})
	return nil
}

// content is a checksum of what an image holds, at a snapshot or now.
func content(t testing.TB, n disk.Name) (sum string) {
	t.Helper()
	return contentAt(t, testLab.Conf, n)
}

// contentAt is content in any cluster.
func contentAt(t testing.TB, conf string, n disk.Name) (sum string) {
	t.Helper()
	onImageAt(t, conf, disk.Name{Pool: n.Pool, Image: n.Image}, func(img *rbd.Image) error {
		if n.Snap != "" {
			if err := img.SetSnapshot(n.Snap); err != nil {
				return err
			}
		}
		size, err := img.GetSize()
		if err != nil {
			return err
		}
		hash, zeros := sha256.New(), make([]byte, 4<<20)
		fmt.Fprint(hash, size)
		data := make([]byte, len(zeros))
		var at uint64
		err = img.DiffIterate(rbd.DiffIterateConfig{Length: size, IncludeParent: rbd.IncludeParent,
			Callback: func(off, length uint64, exists int, _ any) int {
				if exists == 0 {
					return 0
				}
				for at = off; at < off+length; at += uint64(len(data)) {
					part := data[:min(uint64(len(data)), off+length-at)]
					if _, err := img.ReadAt(part, int64(at)); err != nil {
						return -5
					}
					for i := 0; i < len(part); i += 4096 { // what is stored as zeros is as what is not
						if page := part[i:min(i+4096, len(part))]; slices.ContainsFunc(page, func(b byte) bool { return b != 0 }) {
							fmt.Fprint(hash, at+uint64(i))
							hash.Write(page)
						}
					}
				}
				return 0
			}})
		sum = fmt.Sprintf("%x", hash.Sum(nil)[:8])
		return err
	})
	return sum
}

// mess changes a volume in a way that its seed decides: data, zeros, discards.
func mess(t testing.TB, n disk.Name, seed uint64) {
	t.Helper()
	random := rand.New(rand.NewPCG(seed, 1))
	onImage(t, n, func(img *rbd.Image) error {
		size, err := img.GetSize()
		for range 12 {
			off := random.Int64N(int64(size)/4096-64) * 4096
			p := make([]byte, (1+random.IntN(63))*4096)
			switch random.IntN(4) {
			case 0: // zeros that are data
			case 1:
				_, derr := img.Discard(uint64(off), uint64(len(p)))
				err = errors.Join(err, derr)
				continue
			case 2: // a whole object goes
				_, derr := img.Discard(uint64(off)/(4<<20)*(4<<20), 4<<20)
				err = errors.Join(err, derr)
				continue
			default:
				fill(random, p)
			}
			_, werr := img.WriteAt(p, off)
			err = errors.Join(err, werr)
		}
		return err
	})
}

// backedUp is a volume with some data, removed with its backups when the test ends.
func backedUp(t testing.TB, h *Host) disk.Volume {
	t.Helper()
	v, err := h.CreateVolume(t.Context(), "", disk.GiB)
	must(t, err)
	t.Cleanup(func() { dropVolume(t, h, v.ID) })
	mess(t, v.Name(), 1)
	return v
}

// source is what a backup was made from.
func source(b disk.Backup) disk.Name {
	n := b.VolumeName()
	n.Snap = b.Source
	return n
}

// restores compares a backup, restored, with what it was made from.
func restores(t testing.TB, h *Host, b disk.Backup, want string) {
	t.Helper()
	v, err := h.RestoreBackup(t.Context(), b.ID, RestoreOptions{})
	if err != nil {
		t.Error(err)
		return
	}
	if got := content(t, v.Name()); got != want {
		t.Errorf("%s backup %s restores to %s, want %s", b.Kind, b.ID, got, want)
	}
	must(t, h.RemoveVolume(t.Context(), v.ID))
}

func create(t testing.TB, h *Host, volume string, o BackupOptions) disk.Backup {
	t.Helper()
	b, err := h.CreateBackup(t.Context(), volume, o)
	must(t, err)
	return b
}

// snapshotNow takes a snapshot with other means than vmdisk's.
func snapshotNow(t testing.TB, n disk.Name, name string) {
	t.Helper()
	onImage(t, n, func(img *rbd.Image) error {
		_, err := img.CreateSnapshot(name)
		return err
	})
}

// dropSnapshot removes one behind vmdisk's back.
func dropSnapshot(t testing.TB, n disk.Name, name string) {
	t.Helper()
	onImage(t, n, func(img *rbd.Image) error { return img.GetSnapshot(name).Remove() })
}

// A chain with everything that can happen to a volume between two backups: each
// backup restores to what it was made from, in whatever order others are removed.
func TestBackupChain(t *testing.T) {
	h := open(t, 0)
	v := backedUp(t, h)
	want := map[string]string{}
	var chain []disk.Backup
	took := func(o BackupOptions, kind string) {
		t.Helper()
		b := create(t, h, v.ID, o)
		if b.Kind != kind {
			t.Errorf("backup %d is %s, want %s", len(chain), b.Kind, kind)
		}
		want[b.ID] = content(t, source(b))
		chain = append(chain, b)
	}
	incremental := BackupOptions{Kind: disk.BackupIncremental}
	took(incremental, disk.BackupFull) // there is none yet
	mess(t, v.Name(), 2)
	took(incremental, disk.BackupIncremental)
	took(incremental, disk.BackupIncremental) // of nothing
	if last := chain[2]; last.Bytes != 0 || last.Parent != chain[1].ID {
		t.Errorf("backup of nothing: %+v", last)
	}
	mess(t, v.Name(), 3)
	took(BackupOptions{Kind: disk.BackupDifferential}, disk.BackupDifferential)
	if chain[3].Parent != chain[0].ID {
		t.Errorf("differential backup: %+v", chain[3])
	}
	resize := func(size uint64) {
		t.Helper()
		onImage(t, v.Name(), func(img *rbd.Image) error { return img.Resize(size) })
	}
	resize(2 * disk.GiB)
	mess(t, v.Name(), 4)
	took(incremental, disk.BackupIncremental)
	resize(disk.GiB)
	mess(t, v.Name(), 5)
	took(incremental, disk.BackupIncremental)
	resize(2 * disk.GiB) // what was there is not there again
	took(incremental, disk.BackupIncremental)
	resize(disk.GiB)
	// Back to a state before the last backup: the object maps do not tell.
	onImage(t, v.Name(), func(img *rbd.Image) error { return img.GetSnapshot(chain[3].Source).Rollback() })
	took(incremental, disk.BackupIncremental)
	snapshotNow(t, v.Name(), "mine")
	mess(t, v.Name(), 6)
	took(BackupOptions{Kind: disk.BackupIncremental, Snapshot: "mine"}, disk.BackupIncremental)
	took(incremental, disk.BackupIncremental)
	for _, b := range chain {
		restores(t, h, b, want[b.ID])
	}
	verified := func() {
		t.Helper()
		results, err := h.VerifyBackups(t.Context(), v.ID)
		must(t, err)
		for _, r := range results {
			if r.Method != disk.VerifiedBySums || r.Part || r.Blocks == 0 {
				t.Errorf("verified: %+v", r)
			}
		}
	}
	verified()
	// The oldest, one in the middle, the youngest; then one more on what is left.
	for _, i := range []int{0, 5, 9, 1} {
		_, err := h.RemoveBackup(t.Context(), chain[i].ID)
		must(t, err)
		delete(want, chain[i].ID)
	}
	verified()
	all, err := h.Backups(t.Context(), v.ID)
	must(t, err)
	if len(all) != 6 || all[0].Kind != disk.BackupFull || all[0].Parent != "" {
		t.Errorf("what is left: %+v", all)
	}
	mess(t, v.Name(), 7)
	took(incremental, disk.BackupIncremental)
	mess(t, v.Name(), 8)
	took(BackupOptions{Kind: disk.BackupIncremental, Keep: 3}, disk.BackupIncremental)
	all, err = h.Backups(t.Context(), v.ID)
	must(t, err)
	if len(all) != 3 {
		t.Errorf("%d are kept", len(all))
	}
	for _, b := range all {
		restores(t, h, b, want[b.ID])
	}
	verified()
	for _, b := range all {
		_, err := h.RemoveBackup(t.Context(), b.ID)
		must(t, err)
	}
	dropSnapshot(t, v.Name(), "mine")
	must(t, h.RemoveVolume(t.Context(), v.ID)) // no snapshot of ours is on it
}

// A volume from an image: what it has from there is in the full backup, and what is
// discarded of that is in none after.
func TestBackupOfClone(t *testing.T) {
	h := open(t, 0)
	cluster, err := h.Cluster(t.Context())
	must(t, err)
	n, err := disk.ParseVolume("clone")
	must(t, err)
	must(t, cluster.Clone(t.Context(), disk.Name{Pool: disk.ImagePool, Image: "guest", Snap: "snap"}, 0, n))
	t.Cleanup(func() { dropVolume(t, h, "clone") })
	size, err := cluster.Size(t.Context(), n)
	must(t, err)
	same := func(b disk.Backup) {
		t.Helper()
		back, err := h.RestoreBackup(t.Context(), b.ID, RestoreOptions{})
		must(t, err)
		if !bytes.Equal(head(t, back.Name(), size), head(t, source(b), size)) {
			t.Errorf("%s backup of a clone restores to something else", b.Kind)
		}
		must(t, h.RemoveVolume(t.Context(), back.ID))
	}
	same(create(t, h, "clone", BackupOptions{}))
	onImage(t, n, func(img *rbd.Image) error {
		if _, err := img.Discard(0, 8<<20); err != nil { // whole objects that are the image's
			return err
		}
		_, err := img.WriteAt([]byte("changed"), 48<<20+5000)
		return err
	})
	same(create(t, h, "clone", BackupOptions{Kind: disk.BackupIncremental}))
	if _, err := h.VerifyBackups(t.Context(), "clone"); err != nil {
		t.Error(err)
	}
}

// head is the first bytes of an image or a snapshot.
func head(t testing.TB, n disk.Name, size int64) []byte {
	t.Helper()
	p := make([]byte, size)
	onImage(t, disk.Name{Pool: n.Pool, Image: n.Image}, func(img *rbd.Image) error {
		if n.Snap != "" {
			if err := img.SetSnapshot(n.Snap); err != nil {
				return err
			}
		}
		_, err := img.ReadAt(p, 0)
		return err
	})
	return p
}

// dropBackupSnapshots removes what Cinder leaves on a volume that it restored to.
func dropBackupSnapshots(t testing.TB, n disk.Name) {
	t.Helper()
	onImage(t, n, func(img *rbd.Image) error {
		all, err := img.GetSnapshotNames()
		for _, s := range all {
			if disk.IsBackupSnapshot(s.Name) {
				err = errors.Join(err, img.GetSnapshot(s.Name).Remove())
			}
		}
		return err
	})
}
