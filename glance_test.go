package vmdisk

import (
	"bufio"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/vmdisk/vmdisk/disk"
	"github.com/vmdisk/vmdisk/domain"
	"github.com/vmdisk/vmdisk/secret"
)

// glance is Glance's own RBD store in a process of its own: testdata/glance_rbd.py.
type glance struct {
	ask    *json.Encoder
	answer *bufio.Reader
}

func startGlance(t *testing.T, conf string) *glance {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "/usr/bin/python3", "testdata/glance_rbd.py", conf)
	cmd.Stderr = t.Output()
	in, err := cmd.StdinPipe()
	must(t, err)
	out, err := cmd.StdoutPipe()
	must(t, err)
	must(t, cmd.Start())
	t.Cleanup(func() {
		_ = in.Close()
		_ = cmd.Wait()
	})
	return &glance{json.NewEncoder(in), bufio.NewReader(out)}
}

// try calls Glance and returns the name of its exception, or "".
func (g *glance) try(t *testing.T, result any, call ...any) string {
	t.Helper()
	must(t, g.ask.Encode(call))
	line, err := g.answer.ReadBytes('\n')
	must(t, err)
	var answer struct {
		Result         json.RawMessage
		Error, Message string
	}
	must(t, json.Unmarshal(line, &answer))
	if answer.Error == "" && result != nil {
		must(t, json.Unmarshal(answer.Result, result))
	}
	return answer.Error
}

func (g *glance) call(t *testing.T, result any, call ...any) {
	t.Helper()
	if e := g.try(t, result, call...); e != "" {
		t.Fatalf("Glance's %v: %s", call, e)
	}
}

func secretRemoved(t *testing.T, uri, user string) error {
	t.Helper()
	conn, err := domain.Connect(t.Context(), uri, 0)
	must(t, err)
	defer func() { _, _ = conn.Close() }()
	all, err := secret.List(conn)
	must(t, err)
	for _, s := range all {
		if s.User == user {
			return secret.Remove(conn, s.UUID)
		}
	}
	return nil
}

// A disk that Glance stored is an image of ours; what vmdisk imports, under any name
// that it takes, Glance finds by its URL, reads, and removes, and Nova clones.
func TestGlance(t *testing.T) {
	g, h := startGlance(t, testLab.Conf), open(t, 0)
	t.Run("theirs is ours", func(t *testing.T) {
		for id, known := range map[string]bool{"sized": true, "unsized": false} {
			var added struct {
				URL, SHA512 string
				Size        int64
			}
			g.call(t, &added, "add", id, testLab.Guest, known)
			i, err := h.Image(t.Context(), id)
			must(t, err)
			if i.URL != added.URL || i.Size != added.Size || i.Snapshot != disk.ImageSnapshot || !i.Protected || i.Format != "raw" {
				t.Errorf("image is %+v, Glance says %+v", i, added)
			}
			e, err := h.ExportImage(t.Context(), id, filepath.Join(t.TempDir(), "f"), ExportOptions{Checksum: "sha512"})
			if err != nil || e.Checksum != added.SHA512 {
				t.Errorf("exported %+v, %v; Glance says %+v", e, err, added)
			}
			vm := bootOf(t, h, BootOptions{Image: id, NoStart: true})
			// With the caps that it has, it may not even look into the clone's pool.
			if e := g.try(t, nil, "delete", added.URL); e != "PermissionError" && e != "InUseByStore" {
				t.Errorf("Glance removes an image with a clone: %q", e)
			}
			_, err = h.Remove(t.Context(), vm.Name)
			must(t, err)
			must(t, h.RemoveImage(t.Context(), id))
			if e := g.try(t, nil, "size", added.URL); e != "NotFound" {
				t.Errorf("Glance finds what is removed: %q", e)
			}
		}
	})
	file := filepath.Join(t.TempDir(), "small.raw")
	must(t, os.WriteFile(file, append(make([]byte, 9<<20), "the end"...), 0o600))
	for _, id := range []string{"Übung ☃ 50%25 off", "a+b=c#d!e(f)~g{h}^[i]"} {
		t.Run("ours is theirs/"+id, func(t *testing.T) {
			i, err := h.ImportImage(t.Context(), file, ImportOptions{ID: id})
			must(t, err)
			var parsed []string
			g.call(t, &parsed, "parse", i.URL)
			if diff := cmp.Diff([]string{testLab.FSID, "images", id, "snap"}, parsed); diff != "" {
				t.Errorf("Glance reads the URL otherwise (-want +got):\n%s", diff)
			}
			e, err := h.ExportImage(t.Context(), id, filepath.Join(t.TempDir(), "f"), ExportOptions{Checksum: "sha512"})
			must(t, err)
			var got struct {
				Size, Read int64
				SHA512     string
			}
			g.call(t, &got, "get", i.URL)
			if got.Size != i.Size || got.Read != i.Size || got.SHA512 != e.Checksum {
				t.Errorf("Glance reads %+v, it is %+v, %s", got, i, e.Checksum)
			}
			const clone = "6f0e9a7c-5f0b-4d43-8d35-3b8f0a7c9e11_disk"
			g.call(t, nil, "clone", i.URL, "vms", clone)
			must(t, h.RemoveDisk(t.Context(), clone))
			g.call(t, nil, "delete", i.URL)
			if _, err := h.Image(t.Context(), id); !errors.Is(err, disk.ErrNotFound) {
				t.Errorf("error is %v", err)
			}
		})
	}
}

// A qcow2 that Glance was told is raw is recognised before a machine boots garbage,
// and what the error says to type makes an image of it that boots.
func TestWrongFormat(t *testing.T) {
	g, h := startGlance(t, testLab.Conf), open(t, 0)
	dir := t.TempDir()
	file := filepath.Join(dir, "q.qcow2")
	if out, err := exec.Command("qemu-img", "convert", "-O", "qcow2", testLab.Guest, file).CombinedOutput(); err != nil {
		t.Fatal(err, string(out))
	}
	const id = "wrong format"
	var added struct{ URL string }
	g.call(t, &added, "add", id, file, true)
	defer g.call(t, nil, "delete", added.URL)
	if i, err := h.Image(t.Context(), id); err != nil || i.Format != "qcow2" {
		t.Errorf("image is %+v, %v", i, err)
	}
	was := stateNow(t)
	_, err := h.Boot(t.Context(), name(t), BootOptions{Image: id, Memory: guestMemory})
	var e *Error
	if !errors.Is(err, disk.ErrNotRaw) || !errors.As(err, &e) || !strings.Contains(e.Next, "image export 'wrong format'") {
		t.Errorf("error is %v, next %+v", err, e)
	}
	if _, err := h.CreateDisk(t.Context(), DiskOptions{Image: id}); !errors.Is(err, disk.ErrNotRaw) {
		t.Errorf("error is %v", err)
	}
	was.unchanged(t)
	d, err := h.CreateDisk(t.Context(), DiskOptions{Image: id, Format: "raw"})
	must(t, err)
	must(t, h.RemoveDisk(t.Context(), d.Name().String()))

	out := filepath.Join(dir, "out")
	if _, err := h.ExportImage(t.Context(), id, out, ExportOptions{}); !errors.Is(err, disk.ErrNotRaw) {
		t.Errorf("error is %v", err)
	}
	_, err = h.ExportImage(t.Context(), id, out, ExportOptions{Format: "raw"})
	must(t, err)
	i, err := h.ImportImage(t.Context(), out, ImportOptions{ID: "right format"})
	must(t, err)
	if i.Format != "raw" || i.Size != 64<<20 {
		t.Errorf("image is %+v", i)
	}
	must(t, h.RemoveImage(t.Context(), i.ID))
}
