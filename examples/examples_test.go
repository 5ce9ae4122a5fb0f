// Package examples holds small programs that embed vmdisk. They are run here, on
// the lab, one after the other.
package examples

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/vmdisk/vmdisk"
	"github.com/vmdisk/vmdisk/disk"
	"github.com/vmdisk/vmdisk/lab"
)

func TestExamples(t *testing.T) {
	l := openLab(t)
	const vm = "examples"
	t.Cleanup(func() { cleanUp(t, l, vm) })

	out := example(t, l, "boot", vm, l.Guest)
	if want := vm + " is running on compute1 with 128 MiB of disk"; !strings.Contains(out, want) {
		t.Fatalf("boot said %s", out)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	if _, err := l.Console(l.Hosts[0], vm).Wait(ctx, regexp.MustCompile(`ack vda 1\b`)); err != nil {
		t.Fatal(err)
	}
	if out := example(t, l, "hotplug", vm); !strings.Contains(out, vm+" let go of vdb") {
		t.Errorf("hotplug said %s", out)
	}
	if out := example(t, l, "migrate", vm, l.Hosts[1].URI); !strings.Contains(out, "from compute1 to compute2") {
		t.Errorf("migrate said %s", out)
	}
}

func openLab(t *testing.T) *lab.Lab {
	t.Helper()
	l, done, err := lab.Borrow(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := done(); err != nil {
			t.Error(err)
		}
	})
	return l
}

// example builds and runs one as its reader would.
func example(t *testing.T, l *lab.Lab, name string, args ...string) string {
	t.Helper()
	program := filepath.Join(t.TempDir(), name)
	if out, err := exec.Command("go", "build", "-o", program, "./"+name).CombinedOutput(); err != nil {
		t.Fatalf("build %s: %v: %s", name, err, out)
	}
	cmd := exec.CommandContext(t.Context(), program, args...)
	cmd.Env = append(os.Environ(), l.Env()...)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v: %s", name, err, out)
	}
	return string(out)
}

func cleanUp(t *testing.T, l *lab.Lab, vm string) {
	ctx := context.WithoutCancel(t.Context())
	for _, host := range l.Hosts {
		h, err := vmdisk.Open(ctx, vmdisk.Config{Ceph: disk.Config{Conf: l.Conf}, URI: host.URI})
		if err != nil {
			t.Error(err)
			continue
		}
		if _, err := h.VM(ctx, vm); err == nil {
			_, err = h.Remove(ctx, vm)
			if err != nil {
				t.Error(err)
			}
		}
		if host == l.Hosts[1] {
			if err := h.RemoveImage(ctx, vm+"-image"); err != nil {
				t.Error(err)
			}
		}
		if err := h.Close(); err != nil {
			t.Error(err)
		}
	}
}
