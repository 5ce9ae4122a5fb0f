package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/uuid"
)

// Of two machines one has lost its file: the other is adopted, the last line says so,
// and the exit code is that of the failure.
func TestAdoptInstancesSummary(t *testing.T) {
	dir := t.TempDir()
	define := func(vm string, size int64) {
		t.Helper()
		id := uuid.NewString()
		folder := filepath.Join(dir, id)
		file, xml := filepath.Join(folder, "disk"), filepath.Join(folder, "libvirt.xml")
		err := os.Mkdir(folder, 0o755)
		if err == nil && size > 0 {
			if err = os.WriteFile(file, []byte("some data"), 0o600); err == nil {
				err = os.Truncate(file, size)
			}
		}
		if err == nil {
			err = os.WriteFile(xml, []byte(fmt.Sprintf("<domain type='qemu'><name>%s</name><uuid>%s</uuid><memory unit='MiB'>64</memory><os><type>hvm</type></os>"+
				"<devices><disk type='file'><driver name='qemu' type='raw'/><source file='%s'/><target dev='vda'/></disk></devices></domain>", vm, id, file)), 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
		atEnd(t, "rm", vm)
		if out, err := exec.Command("virsh", "define", xml).CombinedOutput(); err != nil {
			t.Fatalf("virsh define: %v: %s", err, out)
		}
	}
	define("summary-good", 8<<20)
	define("summary-bad", 0)
	stdout, stderr, code := vmdiskIs(t, "adopt", "--nova-instances", dir, "--jobs", "2")
	lines := strings.Split(strings.TrimSpace(stderr), "\n")
	if last := lines[len(lines)-1]; code != exitNotFound || !strings.HasSuffix(last, "failed: summary-bad") || !strings.Contains(last, "1 of 2 machines") {
		t.Errorf("exit code %d: %s", code, stderr)
	}
	if !strings.Contains(stdout, "failed") || !strings.Contains(stdout, "8 MiB") {
		t.Errorf("printed %s", stdout)
	}
	var all []struct {
		VM, UUID, State, Folder, Error string
		Disks                          []struct{ Image string }
	}
	stdout, _, code = vmdiskIs(t, "adopt", "--nova-instances", dir, "--dry-run", "-o", "json")
	decode(t, stdout, &all)
	if code != exitNotFound || len(all) != 2 || all[0].VM != "summary-bad" || all[0].Error == "" || all[1].Error != "" || len(all[1].Disks) != 0 {
		t.Errorf("exit code %d: %+v", code, all)
	}
}
