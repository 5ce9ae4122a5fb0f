package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// A machine's disks from the command line, on a machine that stays off: what is
// printed, and that user data is not.
func TestMachineDisks(t *testing.T) {
	const image, vm, secret = "many-disks", "many-disks", "hunter2"
	dir := t.TempDir()
	blank, data := filepath.Join(dir, "blank"), filepath.Join(dir, "user-data")
	if err := os.WriteFile(blank, make([]byte, 8<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(data, []byte("#cloud-config\npassword: "+secret+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	works(t, "image", "import", blank, "--name", image)
	atEnd(t, "image", "rm", image)
	atEnd(t, "image", "rm", "made")
	atEnd(t, "rm", vm)
	type machine struct {
		UUID    string
		Pending *struct{ From int64 } `json:"pending_resize"`
		Disks   []struct {
			Target, Pool, Image, Cache, Role string
			Size                             int64
		}
	}
	stdout, stderr, code := vmdiskIs(t, "boot", vm, "--image", image, "--no-start", "--ephemeral", "16M", "--swap", "8M",
		"--user-data", data, "-o", "json", "--progress", "json")
	if code != exitOK || strings.Contains(stdout+stderr, secret) {
		t.Fatalf("exit code %d: %s%s", code, stdout, stderr)
	}
	roles := func(text string) (machine, string) {
		var m machine
		decode(t, text, &m)
		var all []string
		for _, d := range m.Disks {
			all = append(all, d.Target+" "+d.Role)
		}
		return m, strings.Join(all, ", ")
	}
	m, got := roles(stdout)
	if got != "vda root, vdb ephemeral, vdc swap, vdd config" || m.Disks[1].Image != m.UUID+"_disk.eph0" || m.Disks[2].Size != 8<<20 {
		t.Errorf("machine is %+v", m)
	}
	var made struct {
		ID        string
		Protected bool
	}
	decode(t, works(t, "image", "create", vm, "--name", "made", "-o", "json"), &made)
	if made.ID != "made" || !made.Protected {
		t.Errorf("image is %+v", made)
	}
	if m, _ = roles(works(t, "resize", vm, "16M", "--revertible", "-o", "json")); m.Pending == nil || m.Pending.From != 8<<20 {
		t.Errorf("machine is %+v", m)
	}
	if text := works(t, "info", vm); !strings.Contains(text, "resize from 8 MiB is pending") {
		t.Errorf("info says %s", text)
	}
	for want, args := range map[int][]string{
		exitExists:    {"rebuild", vm, "--image", "made"},
		exitDependent: {"image", "rm", image},
	} {
		if _, stderr, code := vmdiskIs(t, args...); code != want {
			t.Errorf("%v: exit code %d: %s", args, code, stderr)
		}
	}
	if m, _ = roles(works(t, "resize", "--revert", vm, "-o", "json")); m.Disks[0].Size != 8<<20 {
		t.Errorf("machine is %+v", m)
	}
	if _, got = roles(works(t, "rescue", vm, "--image", "made", "--no-start", "-o", "json")); got != "vda rescue, vdb ephemeral, vdc swap, vdd config, vde root" {
		t.Errorf("in rescue disks are %s", got)
	}
	if _, stderr, code := vmdiskIs(t, "rescue", vm, "--image", "made"); code != exitExists || !strings.Contains(stderr, "vmdisk unrescue "+vm) {
		t.Errorf("rescued twice: exit code %d: %s", code, stderr)
	}
	works(t, "unrescue", vm)
	works(t, "rebuild", vm, "--image", "made")
	var d struct{ Parent string }
	decode(t, works(t, "disk", "info", m.UUID, "-o", "json"), &d)
	if d.Parent != "images/made@snap" {
		t.Errorf("disk is %+v", d)
	}
	works(t, "rm", vm)
	works(t, "image", "rm", "made")
}
