package disk

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

const bogusKey = "AQDNCnhlAAAAABAAb0d1c0tleUJvZ3VzS2V5QT09PQ=="

func TestOpenRefuses(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string, mode os.FileMode) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), mode); err != nil {
			t.Fatal(err)
		}
		return path
	}
	wrongKey := write("wrong", "[client.cinder]\n\tkey = "+validKey(t)+"\n", 0o600)
	noMon := write("nomon.conf", "[global]\nfsid = "+testLab.FSID+"\n", 0o644)
	broken := write("broken.conf", "[global\nmon host = 1", 0o644)
	stranger := write("stranger", "[client.somebody]\n\tkey = "+bogusKey+"\n", 0o600)
	tests := []struct {
		name string
		cfg  Config
		want error
		says string
	}{
		{"no ceph.conf", Config{Conf: filepath.Join(dir, "missing.conf")}, ErrInvalid, "missing.conf"},
		{"ceph.conf is a folder", Config{Conf: dir}, ErrInvalid, dir},
		{"malformed ceph.conf", Config{Conf: broken}, ErrInvalid, "broken.conf"},
		{"no monitor in ceph.conf", Config{Conf: noMon}, ErrInvalid, "mon host"},
		{"no keyring", Config{Conf: testLab.Conf, User: "nobody"}, ErrInvalid, "client.nobody"},
		{"keyring named is missing", Config{Conf: testLab.Conf, Keyring: filepath.Join(dir, "none")}, ErrInvalid, "none"},
		{"user not in keyring", Config{Conf: testLab.Conf, Keyring: stranger}, ErrInvalid, "client.cinder"},
		{"wrong key", Config{Conf: testLab.Conf, Keyring: wrongKey}, ErrPermission, "refuse the key of client.cinder"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c, err := Open(t.Context(), tt.cfg)
			if err == nil {
				c.Close()
			}
			if !errors.Is(err, tt.want) || !strings.Contains(err.Error(), tt.says) {
				t.Errorf("error is %v, want %v with %q", err, tt.want, tt.says)
			}
		})
	}
}

// validKey is a key in the right form that the cluster does not know.
func validKey(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile(testLab.Keyring("glance"))
	if err != nil {
		t.Fatal(err)
	}
	_, key, ok := strings.Cut(string(text), "key = ")
	if !ok {
		t.Fatal("no key in glance's keyring")
	}
	return strings.TrimSpace(strings.SplitN(key, "\n", 2)[0])
}

// A monitor that does not answer ends in a time-out and not in a hang.
func TestOpenTimesOut(t *testing.T) {
	if err := testLab.Mon().Freeze(t.Context()); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := testLab.Mon().Thaw(context.WithoutCancel(t.Context())); err != nil {
			t.Error(err)
		}
	}()
	_, err := Open(t.Context(), Config{Conf: testLab.Conf, Timeout: 2 * time.Second})
	if !errors.Is(err, ErrTimeout) {
		t.Errorf("error is %v", err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	if _, err := Open(ctx, Config{Conf: testLab.Conf}); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("error is %v", err)
	}
}

// Of claims by several machines at once one is given the volume.
func TestClaimIsAtomic(t *testing.T) {
	c := open(t)
	n := Name{Pool: VolumePool, Image: "volume-claimed"}
	owners := []string{"one", "two", "three", "four"}
	made := make([]bool, len(owners))
	errs := make([]error, len(owners))
	var wg sync.WaitGroup
	for i, uuid := range owners {
		wg.Go(func() { made[i], errs[i] = c.Claim(t.Context(), n, Owner{VM: uuid, UUID: uuid, Host: "here"}) })
	}
	wg.Wait()
	winner := -1
	for i := range owners {
		switch {
		case made[i] && winner >= 0:
			t.Errorf("%s and %s both got it", owners[winner], owners[i])
		case made[i]:
			winner = i
		case !errors.Is(errs[i], ErrInUse):
			t.Errorf("%s: error is %v", owners[i], errs[i])
		}
	}
	if winner < 0 {
		t.Fatal(errs)
	}
	if again, err := c.Claim(t.Context(), n, Owner{VM: owners[winner], UUID: owners[winner]}); again || err != nil {
		t.Errorf("claiming again: %v, %v", again, err)
	}
	for i := range owners { // releasing what one does not own changes nothing
		if i != winner {
			if err := c.Release(t.Context(), n, owners[i]); err != nil {
				t.Error(err)
			}
		}
	}
	if err := c.Moved(t.Context(), n, owners[winner], "there"); err != nil {
		t.Error(err)
	}
	o, err := c.Owner(t.Context(), n)
	if err != nil || o.UUID != owners[winner] || o.Host != "there" {
		t.Errorf("owner is %+v, %v", o, err)
	}
	if err := c.Release(t.Context(), n, owners[winner]); err != nil {
		t.Error(err)
	}
	if _, err := c.Owner(t.Context(), n); !errors.Is(err, ErrNotFound) {
		t.Errorf("released, the error is %v", err)
	}
}

// What is read from headers is what librbd says.
func TestSizes(t *testing.T) {
	c := open(t)
	n := Name{Pool: VolumePool, Image: "volume-sized"}
	if _, err := c.CreateVolume(t.Context(), n, 3*GiB); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := c.RemoveVolume(context.WithoutCancel(t.Context()), n); err != nil {
			t.Error(err)
		}
	}()
	sizes, err := c.Sizes(t.Context(), []Name{n, {Pool: VolumePool, Image: "nothing"}, {Pool: "nothing", Image: "x"}})
	if err != nil || len(sizes) != 1 || sizes[n] != 3*GiB {
		t.Errorf("sizes are %v, %v", sizes, err)
	}
}

func TestCreateVolumeRefuses(t *testing.T) {
	c := open(t)
	for _, size := range []int64{0, -GiB, GiB / 2, GiB + 1} {
		if _, err := c.CreateVolume(t.Context(), Name{Pool: VolumePool, Image: "volume-odd"}, size); !errors.Is(err, ErrInvalid) {
			t.Errorf("size %d: error is %v", size, err)
		}
	}
}
