package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/vmdisk/vmdisk"
	"github.com/vmdisk/vmdisk/disk"
)

// A boot from a file says that the machine is there, and brings its data; with --wait
// it says it at the end. What could not be brought, fill goes on with.
func TestBootFromFile(t *testing.T) {
	file := qcow2(t)
	atEnd(t, "rm", "from-file", "--ignore-not-found")
	stdout, stderr, code := vmdiskIs(t, "boot", "from-file", "--image", file, "--no-start", "--progress", "plain")
	if code != 0 || !strings.HasPrefix(stdout, "from-file is shut off on compute1") || strings.Count(stdout, "\n") != 1 {
		t.Errorf("exit code %d, standard output: %s", code, stdout)
	}
	for _, step := range []string{"\nlink ", "\nfill ", "\npart "} {
		if !strings.Contains("\n"+stderr, step) {
			t.Errorf("no step %q in: %s", step, stderr)
		}
	}
	if s := works(t, "fill", "from-file"); s != "from-file's data is all in Ceph already\n" {
		t.Errorf("filled again: %s", s)
	}
	works(t, "rm", "from-file")
	var vm vmdisk.VM
	decode(t, works(t, "boot", "from-file", "--image", file, "--no-start", "--wait", "-o", "json"), &vm)
	if vm.Name != "from-file" || vm.Filling != nil {
		t.Errorf("it is %+v", vm)
	}
	works(t, "rm", "from-file")
}

func TestFillWithoutOrigin(t *testing.T) {
	whole, err := os.ReadFile(qcow2(t))
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "disk.qcow2")
	if err := os.WriteFile(file, whole, 0o600); err != nil {
		t.Fatal(err)
	}
	atEnd(t, "rm", "left-alone", "--ignore-not-found")
	stdout, stderr, code := vmdiskIs(t, "boot", "left-alone", "--image", file, "--no-start", "--timeout", "10s", "--progress", "json", "--id", "nobody")
	if code != exitBadInput || stdout != "" {
		t.Errorf("exit code %d: %s%s", code, stdout, stderr)
	}
	h, err := vmdisk.Open(t.Context(), vmdisk.Config{Ceph: disk.Config{Conf: testLab.Conf}, URI: testLab.Hosts[0].URI})
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close()
	if _, err := h.Boot(t.Context(), "left-alone", vmdisk.BootOptions{Image: file, NoStart: true}); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"from  " + file, "at    0 %", "vmdisk fill left-alone"} {
		if s := works(t, "fill", "left-alone", "--status"); !strings.Contains(s, want) {
			t.Errorf("no %q in: %s", want, s)
		}
	}
	if s := works(t, "info", "left-alone"); !strings.Contains(s, "reads from "+file+" what is not in Ceph yet") {
		t.Errorf("info: %s", s)
	}
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	_, stderr, code = vmdiskIs(t, "fill", "left-alone", "--progress", "none")
	if code != exitTimeout || !strings.Contains(stderr, "no such file") || !strings.Contains(stderr, "when that is back as it was:  vmdisk fill left-alone") {
		t.Errorf("exit code %d: %s", code, stderr)
	}
	works(t, "rm", "left-alone")
}
