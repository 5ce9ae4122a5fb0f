// Killed at any moment, and not only between steps: an import somewhere in its copy,
// a clone between any two calls of librbd.

package vmdisk

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	mathrand "math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ceph/go-ceph/rados"
	"github.com/google/uuid"
	"github.com/vmdisk/vmdisk/disk"
)

// moment is when a process dies: so many bytes into an import, or so long into a
// clone.
type moment struct {
	File, Image string
	Bytes       int64
	UUID        string
	After       time.Duration
}

func (m moment) happen(t *testing.T) {
	cfg := config(0)
	cfg.Observe = func(e Event) {
		switch {
		case m.File != "" && e.Kind == Progress && e.Bytes >= m.Bytes:
			killSelf()
		case m.UUID != "" && e.Kind == Started && e.Step == "clone":
			time.AfterFunc(m.After, killSelf)
		}
	}
	h, err := Open(t.Context(), cfg)
	must(t, err)
	if m.File != "" {
		_, err = h.ImportImage(t.Context(), m.File, ImportOptions{ID: m.Image})
	} else {
		_, err = h.CreateDisk(t.Context(), DiskOptions{Image: "guest", UUID: m.UUID})
	}
	must(t, err)
	time.Sleep(m.After) // it was faster
	killSelf()
}

// atOnce runs f for each, four at a time.
func atOnce[T any](t *testing.T, all []T, f func(T) error) {
	t.Helper()
	errs := make([]error, len(all))
	room := make(chan struct{}, 4)
	var wg sync.WaitGroup
	for i, one := range all {
		room <- struct{}{}
		wg.Go(func() { errs[i] = f(one); <-room })
	}
	wg.Wait()
	must(t, errors.Join(errs...))
}

// An import that was killed is never an image: not in a list, and nothing is cloned
// from it. The same command again makes it whole.
func TestImportKilledAtAnyMoment(t *testing.T) { killedAtAnyMoment(t, 4, 0) }

// A clone that was killed is gone after a repair, whatever there was of it, or whole.
func TestCloneKilledAtAnyMoment(t *testing.T) { killedAtAnyMoment(t, 0, 12) }

// killedAtAnyMoment kills so many imports and clones. No object is left of them.
func killedAtAnyMoment(t *testing.T, ofImports, ofClones int) {
	t.Helper()
	forgetsSoon(t)
	h := open(t, 0)
	file := filepath.Join(t.TempDir(), "random.raw")
	data := make([]byte, 16<<20)
	_, _ = rand.Read(data)
	must(t, os.WriteFile(file, data, 0o600))
	sum := sha256.Sum256(data)
	took := timeClone(t, h)
	was, objects := stateNow(t).named(), dataObjects(t)

	var imports, clones []moment
	for range ofImports {
		imports = append(imports, moment{File: file, Image: name(t), Bytes: mathrand.Int64N(int64(len(data)))})
	}
	for range ofClones {
		clones = append(clones, moment{UUID: uuid.NewString(), After: took/3 + time.Duration(mathrand.Int64N(int64(took)))})
	}
	atOnce(t, slices.Concat(imports, clones), func(m moment) error { return dies(child("moment", m)) })

	images, err := h.Images(t.Context())
	must(t, err)
	for _, m := range imports {
		if slices.ContainsFunc(images, func(i disk.Image) bool { return strings.HasPrefix(i.ID, m.Image) }) {
			t.Errorf("killed at %d bytes, it is an image: %+v", m.Bytes, images)
		}
		if _, err := h.CreateDisk(t.Context(), DiskOptions{Image: m.Image}); !errors.Is(err, disk.ErrNotFound) {
			t.Errorf("cloned from an image that was killed at %d bytes: %v", m.Bytes, err)
		}
	}
	for _, m := range clones {
		t.Logf("killed %v into a clone of %v: %s", m.After, took, halfClone(t, m.UUID))
	}
	atOnce(t, imports, func(m moment) error {
		if _, err := h.ImportImage(t.Context(), m.File, ImportOptions{ID: m.Image}); err != nil {
			return err
		}
		e, err := h.ExportImage(t.Context(), m.Image, "", ExportOptions{Writer: io.Discard, Checksum: "sha256"})
		if err == nil && e.Checksum != hex.EncodeToString(sum[:]) {
			err = fmt.Errorf("killed at %d bytes and done again it is another: %+v", m.Bytes, e)
		}
		return errors.Join(err, h.RemoveImage(context.WithoutCancel(t.Context()), m.Image))
	})
	_, err = h.Repair(t.Context(), RepairOptions{})
	must(t, err)
	for _, m := range clones {
		if half := halfClone(t, m.UUID); half != wholeClone && half != "nothing" {
			t.Errorf("repaired, there is of a clone: %s", half)
		}
		must(t, gone(h.RemoveDisk(t.Context(), m.UUID))) // it may have happened
		_, err := h.CreateDisk(t.Context(), DiskOptions{Image: "guest", UUID: m.UUID})
		must(t, err)
		must(t, h.RemoveDisk(t.Context(), m.UUID))
	}
	if now := stateNow(t).named(); !slices.Equal(now, was) {
		t.Errorf("it was\n%s\nand is\n%s", strings.Join(was, "\n"), strings.Join(now, "\n"))
	}
	if now := dataObjects(t); now != objects {
		t.Errorf("there were %d objects of data, and are %d", objects, now)
	}
}

// timeClone is how long a clone takes.
func timeClone(t *testing.T, h *Host) time.Duration {
	d, err := h.CreateDisk(t.Context(), DiskOptions{Image: "guest"})
	must(t, err)
	must(t, h.RemoveDisk(t.Context(), d.Name().String()))
	var began time.Time
	h.fault = func(_, step string, when phase) error {
		if step == "clone" && when == before {
			began = time.Now()
		}
		return nil
	}
	defer func() { h.fault = nil }()
	d, err = h.CreateDisk(t.Context(), DiskOptions{Image: "guest"})
	took := time.Since(began)
	must(t, err)
	must(t, h.RemoveDisk(t.Context(), d.Name().String()))
	return took
}

// dataObjects counts what the images of a pool hold.
func dataObjects(t *testing.T) (n int) {
	withCeph(t, func(conn *rados.Conn) {
		for _, pool := range []string{disk.ImagePool, disk.VMPool} {
			io, err := conn.OpenIOContext(pool)
			must(t, err)
			must(t, io.ListObjects(func(object string) {
				if strings.HasPrefix(object, "rbd_data.") {
					n++
				}
			}))
			io.Destroy()
		}
	})
	return n
}

// wholeClone is what there is of a clone that is whole.
const wholeClone = "a name, a header, a parent, known to its parent"

// halfClone says what there is of a machine's disk.
func halfClone(t *testing.T, id string) string {
	var found []string
	withCeph(t, func(conn *rados.Conn) {
		pool, err := conn.OpenIOContext(disk.VMPool)
		must(t, err)
		defer pool.Destroy()
		listed, err := pool.GetOmapValues("rbd_directory", "", "name_"+id, 1)
		must(t, err)
		var header string
		for _, value := range listed {
			found, header = append(found, "a name"), string(value[4:])
		}
		if omap, err := pool.GetAllOmapValues("rbd_header."+header, "", "", 100); err == nil && header != "" {
			found = append(found, "a header")
			if omap["parent"] != nil {
				found = append(found, "a parent")
			}
		}
		children, err := pool.GetAllOmapValues("rbd_children", "", "", 1000)
		must(t, err)
		for _, value := range children {
			if header != "" && bytes.Contains(value, []byte(header)) {
				found = append(found, "known to its parent")
			}
		}
	})
	if found == nil {
		return "nothing"
	}
	return strings.Join(found, ", ")
}

// An image is removed, or put into the trash, while a disk is cloned from it. One of
// them is refused, or the disk has its parent, be it in the trash: it never reads
// zeros.
func TestRemovedWhileCloned(t *testing.T) {
	removing, cloning := open(t, 0), open(t, 0)
	id := name(t)
	file := filepath.Join(t.TempDir(), "small.raw")
	must(t, os.WriteFile(file, bytes.Repeat([]byte("not zero"), 1<<17), 0o600))
	was := stateNow(t).named()
	outcomes := map[string]int{}
	for round := range 20 {
		_, err := removing.ImportImage(t.Context(), file, ImportOptions{ID: id})
		must(t, err)
		want, err := removing.ExportImage(t.Context(), id, "", ExportOptions{Writer: io.Discard, Checksum: "sha256"})
		must(t, err)
		lag := time.Duration(mathrand.Int64N(int64(20 * time.Millisecond)))
		removed := make(chan error, 1)
		trash := round%2 == 1
		go func() {
			time.Sleep(lag)
			if trash {
				_, err := removing.TrashImage(t.Context(), id, 0)
				removed <- err
				return
			}
			removed <- removing.RemoveImage(t.Context(), id)
		}()
		d, cloneErr := cloning.CreateDisk(t.Context(), DiskOptions{Image: id})
		removeErr := <-removed
		outcomes[fmt.Sprintf("trash %v, cloned %v, removed %v", trash, cloneErr == nil, removeErr == nil)]++
		if removeErr != nil && errors.Is(cloneErr, disk.ErrInvalid) {
			cloneErr = disk.ErrNotProtected // for the moment in which librbd looked for clones
		}
		for _, err := range []error{cloneErr, removeErr} {
			if err != nil && !errors.Is(err, disk.ErrHasClones) && !errors.Is(err, disk.ErrInUse) &&
				!errors.Is(err, disk.ErrNotFound) && !errors.Is(err, disk.ErrNotProtected) {
				t.Error(err)
			}
		}
		if cloneErr == nil {
			if removeErr == nil && !trash {
				t.Error("an image was removed and a disk cloned from it")
			}
			sum, err := mustCluster(t, cloning).ExportTo(t.Context(), d.Name(), io.Discard, disk.ExportOptions{Checksum: "sha256"})
			if err != nil || sum != want.Checksum {
				t.Errorf("the disk reads otherwise than its image: %s, %v", sum, err)
			}
			must(t, cloning.RemoveDisk(t.Context(), d.Name().String()))
		}
		if trash && removeErr == nil {
			_, err = removing.PurgeImage(t.Context(), id, true)
		} else {
			err = gone(removing.RemoveImage(t.Context(), id))
		}
		must(t, err)
	}
	t.Log(outcomes)
	if now := stateNow(t).named(); !slices.Equal(now, was) {
		t.Errorf("it was\n%s\nand is\n%s", strings.Join(was, "\n"), strings.Join(now, "\n"))
	}
}
