package domain

import (
	"errors"
	"flag"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/vmdisk/vmdisk/disk"
)

var update = flag.Bool("update", false, "rewrite the golden files")

var monitors = []disk.Monitor{{Host: "10.0.0.1", Port: "3300"}, {Host: "2001:db8::2", Port: "3300"}}

func root() Disk {
	return Disk{
		Target: "vda", Pool: "vms", Image: "0abeb490-2eb5-4aba-b3f1-d27f87dd1ebe_disk",
		User: "cinder", SecretUUID: "457eb676-33da-42ec-9a8c-9293d545c337", Monitors: monitors, Conf: disk.DefaultConf,
	}
}

func volume() Disk {
	d := root()
	d.Target, d.Pool, d.Image = "vdb", "volumes", "volume-7b6d3c0f-7a36-4f8c-a4b1-8f5f0d6d0b11"
	d.Serial, d.Conf = "7b6d3c0f-7a36-4f8c-a4b1-8f5f0d6d0b11", "/srv/ceph/other.conf"
	return d
}

func machine() Machine {
	return Machine{
		Name: "web1", UUID: "0abeb490-2eb5-4aba-b3f1-d27f87dd1ebe", Type: "qemu",
		Memory: 512 << 20, VCPUs: 2, Networks: []string{"default"}, Disks: []Disk{root(), volume()},
	}
}

// golden compares a domain's XML with a file and with libvirt's own schema.
func golden(t *testing.T, name, xml string) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(path, []byte(xml+"\n"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), xml+"\n"); diff != "" {
		t.Error(diff)
	}
	if out, err := exec.Command("virt-xml-validate", path, "domain").CombinedOutput(); err != nil {
		t.Errorf("virt-xml-validate: %v: %s", err, out)
	}
}

func TestMachineXML(t *testing.T) {
	for name, m := range map[string]Machine{
		"machine.xml": machine(),
		"machine-kvm.xml": func() Machine {
			m := machine()
			m.Type, m.Networks, m.Disks = "kvm", nil, m.Disks[:1]
			return m
		}(),
	} {
		t.Run(name, func(t *testing.T) {
			xml, err := m.XML()
			if err != nil {
				t.Fatal(err)
			}
			golden(t, name, xml)
		})
	}
}

// A name cannot become markup, whoever let it through.
func TestMachineXMLQuotes(t *testing.T) {
	m := machine()
	m.Name = `</name><devices/><name a="`
	xml, err := m.XML()
	if err != nil {
		t.Fatal(err)
	}
	if d, err := parse(xml); err != nil || d.Name != m.Name {
		t.Errorf("name is %q, %v", d.Name, err)
	}
}

func TestSupply(t *testing.T) {
	read := func(name string) string {
		text, err := os.ReadFile(filepath.Join("testdata", name))
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
	d := root()
	d.Target = ""
	for _, name := range []string{"placeholder", "bare"} {
		t.Run(name, func(t *testing.T) {
			xml, err := Supply(read("own-"+name+".xml"), "web1", machine().UUID, d)
			if err != nil {
				t.Fatal(err)
			}
			golden(t, "supplied-"+name+".xml", xml)
		})
	}
}

func TestSupplyRefusesWhatItWouldLose(t *testing.T) {
	for xml, lost := range map[string]string{
		`<domain type='qemu'><tyop/></domain>`:                                "domain/tyop",
		`<domain type='qemu'><memory unit='MiB' tyop='1'>1</memory></domain>`: "domain/memory@tyop",
	} {
		if _, err := Supply(xml, "web1", machine().UUID, root()); !errors.Is(err, ErrInvalid) || !strings.Contains(err.Error(), lost) {
			t.Errorf("%s: error is %v", xml, err)
		}
	}
}

// Whatever libvirt itself prints of a machine survives.
func TestLibvirtXMLSurvives(t *testing.T) {
	files, err := filepath.Glob("testdata/*.xml")
	if err != nil || len(files) == 0 {
		t.Fatal(files, err)
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		d, err := parse(string(text))
		if err == nil {
			err = checkLossless(string(text), d)
		}
		if err != nil {
			t.Errorf("%s: %v", file, err)
		}
	}
}

func TestRewrite(t *testing.T) {
	xml, err := machine().XML()
	if err != nil {
		t.Fatal(err)
	}
	const secret = "11111111-33da-42ec-9a8c-9293d545c337"
	now := []disk.Monitor{{Host: "10.0.0.9", Port: "6789"}}
	changed, yes, err := Rewrite(xml, now, disk.DefaultConf, secret)
	if err != nil || !yes {
		t.Fatalf("changed is %v, %v", yes, err)
	}
	// The volume has another ceph.conf: it is in another cluster.
	m := machine()
	m.Disks[0].Monitors, m.Disks[0].SecretUUID = now, secret
	want, err := m.XML()
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, changed); diff != "" {
		t.Error(diff)
	}
	if _, again, err := Rewrite(changed, now, disk.DefaultConf, secret); err != nil || again {
		t.Errorf("the second time changed is %v, %v", again, err)
	}
}

func TestFreeTarget(t *testing.T) {
	var taken []string
	for range 27 {
		taken = append(taken, FreeTarget(taken))
	}
	if got := taken[25] + taken[26] + FreeTarget([]string{"vda", "vdc"}); got != "vdzvdaavdb" {
		t.Errorf("targets are %s", got)
	}
}

func TestRemoteURI(t *testing.T) {
	for _, tt := range []struct{ base, dest, want string }{
		{"qemu:///system", "qemu+tcp://10.0.0.2/system", "qemu+tcp://10.0.0.2/system"},
		{"qemu:///system", "compute2", "qemu://compute2/system"},
		{"qemu+ssh://root@compute1/system", "compute2", "qemu+ssh://root@compute2/system"},
		{"qemu+tcp://127.0.1.1:16509/system", "127.0.1.2", "qemu+tcp://127.0.1.2:16509/system"},
		{"qemu+tcp://127.0.1.1:16509/system", "127.0.1.2:16510", "qemu+tcp://127.0.1.2:16510/system"},
	} {
		got, err := RemoteURI(tt.base, tt.dest)
		if err != nil || got != tt.want {
			t.Errorf("RemoteURI(%q, %q) = %q, %v; want %q", tt.base, tt.dest, got, err, tt.want)
		}
	}
	for _, bad := range []string{"", "-x", "a b", "a/b", "a@b", "://"} {
		if got, err := RemoteURI("qemu:///system", bad); err == nil {
			t.Errorf("%q is taken for %q", bad, got)
		}
	}
}
