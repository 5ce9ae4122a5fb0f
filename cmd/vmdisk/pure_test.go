package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/vmdisk/vmdisk"
	"github.com/vmdisk/vmdisk/disk"
	"github.com/vmdisk/vmdisk/domain"
	"github.com/vmdisk/vmdisk/migrate"
)

func TestArrange(t *testing.T) {
	app := newApp(nil, nil)
	for _, tt := range []struct{ typed, want string }{
		{"boot web1 --image X", "boot --image X -- web1"},
		{"boot --image X web1", "boot --image X -- web1"},
		{"boot web1 --image=X --no-start", "boot --image=X --no-start -- web1"},
		{"ls -o json", "-o json ls"},
		{"-o json ls", "-o json ls"},
		{"image import F --name guest", "image import --name guest -- F"},
		{"--name client.glance image ls", "--name client.glance image ls"},
		{"image import F --name x -n client.glance", "-n client.glance image import --name x -- F"},
		{"volume rm boot", "volume rm -- boot"},
		{"rm -- -x", "rm -- -x"},
		{"lab run --osds 2 -- make -k test", "lab run --osds 2 -- make -k test"},
		{"resize web1 +10G --timeout 5s", "--timeout 5s resize -- web1 +10G"},
		{"boot web1 --bogus", "boot --bogus -- web1"},
	} {
		got := strings.Join(arrange(app, strings.Fields(tt.typed)), " ")
		if got != tt.want {
			t.Errorf("%s\n became %s\n not    %s", tt.typed, got, tt.want)
		}
	}
}

func TestParseSize(t *testing.T) {
	for text, want := range map[string]int64{
		"512M": 512 << 20, "10G": 10 << 30, "10g": 10 << 30, "10GiB": 10 << 30, "10GB": 10 << 30,
		"1.5T": 3 << 39, "1K": 1024, "2P": 2 << 50,
	} {
		if got, err := parseSize(text); err != nil || got != want {
			t.Errorf("%s is %d, %v; want %d", text, got, err, want)
		}
	}
	for _, bad := range []string{"", "10", "G", "-1G", "+1G", "0G", "1X", "1 G", "1e3G", "99999999P", "0.0001K"} {
		if got, err := parseSize(bad); exitCode(err) != exitBadInput {
			t.Errorf("%q is taken for %d", bad, got)
		}
	}
	if size, by, err := parseGrowth("+10G"); size != 10<<30 || !by || err != nil {
		t.Errorf("+10G is %d, %v, %v", size, by, err)
	}
}

func TestExitCodes(t *testing.T) {
	left := &vmdisk.Error{Op: "boot", Object: "x", Err: context.Canceled, Left: []string{"clone"}}
	for _, tt := range []struct {
		err  error
		code int
	}{
		{nil, 0},
		{errors.New("?"), 1},
		{&disk.Error{Kind: disk.ErrPermission}, 1},
		{&disk.Error{Kind: disk.ErrNotFound}, 2},
		{fs.ErrNotExist, 2},
		{&domain.Error{Kind: domain.ErrNotFound}, 2},
		{&disk.Error{Kind: disk.ErrInUse}, 16},
		{&disk.Error{Kind: disk.ErrExists}, 17},
		{&domain.Error{Kind: domain.ErrTargetInUse}, 17},
		{usagef("no"), 22},
		{fmt.Errorf("%w: x", disk.ErrBadSource), 22},
		{migrate.ErrSameHost, 22},
		{&disk.Error{Kind: disk.ErrNoSpace}, 28},
		{&disk.Error{Kind: disk.ErrHasClones}, 39},
		{&disk.Error{Kind: disk.ErrHasSnapshots}, 39},
		{left, 75},
		{&vmdisk.Error{Err: &disk.Error{Kind: disk.ErrTimeout}, Left: []string{"clone"}}, 110},
		{&disk.Error{Kind: disk.ErrTimeout}, 110},
		{&domain.Error{Kind: domain.ErrPending}, 110},
		{fmt.Errorf("boot: %w", context.Canceled), 130},
	} {
		if got := exitCode(tt.err); got != tt.code {
			t.Errorf("%v gives %d, want %d", tt.err, got, tt.code)
		}
	}
}

func TestPrintError(t *testing.T) {
	err := &vmdisk.Error{Op: "remove", Object: "volumes/v", Next: "type this", Left: []string{"clone vms/x: stuck"},
		Err: &disk.Error{Op: "remove", Object: "volumes/v", Kind: disk.ErrInUse, Holders: []string{"open by a", "open by b"}}}
	var b bytes.Buffer
	printError(&b, err)
	want := `vmdisk: remove volumes/v: in use
  open by a
  open by b
  left behind: clone vms/x: stuck
  type this
`
	if diff := cmp.Diff(want, b.String()); diff != "" {
		t.Error(diff)
	}
}

// What is said of several machines ends with how many they are.
func TestPrintErrorSummed(t *testing.T) {
	why := []error{&vmdisk.Error{Op: "migrate", Object: "web1", Err: domain.ErrTimeout}, &vmdisk.Error{Op: "migrate", Object: "web2", Err: disk.ErrInUse}}
	err := summed(why, &vmdisk.DrainError{Host: "compute1", Of: 3, Errs: why})
	var b bytes.Buffer
	printError(&b, err)
	want := "vmdisk: migrate web1: timed out\nvmdisk: migrate web2: in use\nvmdisk: 2 of 3 machines stay on compute1\n"
	if diff := cmp.Diff(want, b.String()); diff != "" {
		t.Error(diff)
	}
	if !errors.Is(err, domain.ErrTimeout) || !errors.Is(err, disk.ErrInUse) {
		t.Error("it does not match what it is about")
	}
}

func TestAbbreviate(t *testing.T) {
	got := abbreviate("images/debian-12@snap → vms/05624be1-aaaa-bbbb-cccc-0123456f6660_disk")
	if want := "images/debian-12@snap → vms/0562…6660_disk"; got != want {
		t.Errorf("got %s", got)
	}
}
