// The command on the lab, run in this process.

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/vmdisk/vmdisk/lab"
)

var testLab *lab.Lab

func TestMain(m *testing.M) { os.Exit(testMain(m)) }

// testMain uses the lab in $VMDISK_LAB or one of its own; without one the tests
// fail.
func testMain(m *testing.M) int {
	ctx := context.Background()
	l, done, err := lab.Borrow(ctx)
	if err != nil {
		fmt.Fprintln(os.Stderr, "no lab:", err)
		return 1
	}
	defer func() { _ = done() }()
	testLab = l
	for _, pair := range testLab.Env() {
		name, value, _ := strings.Cut(pair, "=")
		if err := os.Setenv(name, value); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
	}
	return m.Run()
}

// vmdisk runs the command and returns what it printed and its exit code.
func vmdiskIs(t *testing.T, args ...string) (stdout, stderr string, code int) {
	t.Helper()
	var out, err bytes.Buffer
	code = run(t.Context(), args, &out, &err)
	return out.String(), err.String(), code
}

// works runs a command that must succeed and returns its standard output.
func works(t *testing.T, args ...string) string {
	t.Helper()
	stdout, stderr, code := vmdiskIs(t, args...)
	if code != exitOK {
		t.Fatalf("vmdisk %v: exit code %d: %s", args, code, stderr)
	}
	return stdout
}

// atEnd runs a command when the test ends, whatever comes of it.
func atEnd(t *testing.T, args ...string) {
	t.Cleanup(func() {
		var ignored bytes.Buffer
		run(context.Background(), args, &ignored, &ignored)
	})
}

// qcow2 is the lab's guest as another tool wrote it.
func qcow2(t *testing.T, options ...string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "guest.qcow2")
	args := append([]string{"convert", "-f", "raw", "-O", "qcow2"}, options...)
	if out, err := exec.Command("qemu-img", append(args, testLab.Guest, path)...).CombinedOutput(); err != nil {
		t.Fatalf("qemu-img: %v: %s", err, out)
	}
	return path
}

// Images that qemu-img made, however compressed, boot; and what the command
// prints as JSON has what scripts rely on.
func TestStory(t *testing.T) {
	for _, compression := range []string{"zlib", "zstd"} {
		t.Run(compression, func(t *testing.T) {
			file := qcow2(t, "-c", "-o", "compression_type="+compression)
			image, vm := "story-"+compression, "story-"+compression
			atEnd(t, "image", "rm", image)
			var i struct {
				ID, Snapshot, URL string
				Size, Used        int64
				Protected         bool
			}
			decode(t, works(t, "image", "import", file, "--name", image, "-o", "json"), &i)
			if i.ID != image || i.Size != 64<<20 || i.Used == 0 || i.Snapshot != "snap" || !i.Protected ||
				i.URL != "rbd://"+testLab.FSID+"/images/"+image+"/snap" {
				t.Errorf("image is %+v", i)
			}
			atEnd(t, "rm", vm)
			var v struct {
				Name, UUID, State string
				Disks             []struct {
					Target, Pool, Image, Cache string
					Size                       int64
				}
			}
			decode(t, works(t, "-o", "json", "boot", vm, "--image", image, "--memory", "128M", "--size", "96M"), &v)
			if v.Name != vm || v.State != "running" || len(v.Disks) != 1 || v.Disks[0].Size != 96<<20 ||
				v.Disks[0].Image != v.UUID+"_disk" || v.Disks[0].Cache != "writeback" {
				t.Errorf("machine is %+v", v)
			}
			ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
			defer cancel()
			if _, err := testLab.Console(testLab.Hosts[0], vm).Wait(ctx, regexp.MustCompile(`ack vda 1\b`)); err != nil {
				t.Error(err)
			}
			works(t, "rm", vm)
			works(t, "image", "rm", image)
		})
	}
}

func decode(t *testing.T, text string, into any) {
	t.Helper()
	if err := json.Unmarshal([]byte(text), into); err != nil {
		t.Fatalf("%v in %s", err, text)
	}
}

func TestCount(t *testing.T) {
	works(t, "image", "import", testLab.Guest, "--name", "counted")
	atEnd(t, "image", "rm", "counted")
	for i := range 3 {
		atEnd(t, "rm", fmt.Sprintf("many-%d", i+1))
	}
	var vms []struct{ Name string }
	decode(t, works(t, "boot", "many", "--count", "3", "--image", "counted", "--no-start", "-o", "json"), &vms)
	if len(vms) != 3 || vms[2].Name != "many-3" {
		t.Errorf("machines are %v", vms)
	}
	for i := range 3 {
		works(t, "rm", fmt.Sprintf("many-%d", i+1))
	}
	var disks []struct{ Pool, Image, Parent string }
	decode(t, works(t, "disk", "create", "--count", "2", "--image", "counted", "-o", "json"), &disks)
	if len(disks) != 2 || disks[0].Parent != "images/counted@snap" {
		t.Errorf("disks are %v", disks)
	}
	_, stderr, code := vmdiskIs(t, "image", "rm", "counted")
	if code != exitDependent || !strings.Contains(stderr, disks[0].Image) {
		t.Errorf("with clones: exit code %d: %s", code, stderr)
	}
	for _, d := range disks {
		works(t, "disk", "rm", d.Image)
	}
	works(t, "image", "rm", "counted")
}

// Bad input: the exit code, one message that says what is wrong, nothing on
// standard output, and no usage screen.
func TestBadInput(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	config := write("config.yaml", "conf: /etc/ceph/ceph.conf\nbogus: 1\n")
	backed := filepath.Join(dir, "backed.qcow2")
	out, err := exec.Command("qemu-img", "create", "-f", "qcow2", "-b", "/etc/passwd", "-F", "raw", backed).CombinedOutput()
	if err != nil {
		t.Fatalf("qemu-img: %v: %s", err, out)
	}
	whole, err := os.ReadFile(qcow2(t))
	if err != nil {
		t.Fatal(err)
	}
	cut := write("cut.qcow2", string(whole[:len(whole)-1<<20]))
	tests := []struct {
		typed string
		code  int
		says  string
	}{
		{"bogus", 22, "bogus"},
		{"image bogus", 22, "bogus"},
		{"boot", 22, "VM is missing"},
		{"boot a b --image X", 22, `"b"`},
		{"boot a", 22, "--image"},
		{"boot a --image X --size 10", 22, "unit"},
		{"boot a --image X --bogus", 22, "bogus"},
		{"boot a --image X --count 0", 22, "count"},
		{"boot a --image /x --count 2", 22, "import it first"},
		{"boot a --image X --format qcow2", 22, "none of raw"},
		{"boot a --image " + dir + "/none", 2, "none"},
		{"boot a --image " + backed, 22, "/etc/passwd"},
		{"boot a --image " + cut, 22, "cut"},
		{"boot a --image http://127.0.0.1:1/x", 110, "does not answer"},
		{"adopt a --jobs 2", 22, "--nova-instances"},
		{"adopt --nova-instances " + dir + " --jobs 0", 22, "not positive"},
		{"adopt --nova-instances " + dir + " --undo", 22, "one machine"},
		{"adopt --nova-instances " + dir + " a", 22, `"a"`},
		{"adopt --nova-instances " + dir + "/none", 2, "none"},
		{"boot a --image ftp://127.0.0.1/x", 22, "https://"},
		{"fill", 22, "VM is missing"},
		{"fill nothing", 2, "nothing"},
		{"fill nothing --abort", 2, "nothing"},
		{"fill nothing --status --abort", 22, "exclude"},
		{"boot a --image nothing", 2, "nothing"},
		{"boot a/b --image X", 22, `'/'`},
		{"boot --image X -- -a", 22, "dash"},
		{"boot a --image X --swap 10", 22, "unit"},
		{"boot a --image X --swap 1K", 22, "MiB"},
		{"boot a --image X --ephemeral 1G --ephemeral 0.5M", 22, "ephemeral"},
		{"boot a --image X --user-data " + dir, 22, "is a directory"},
		{"boot a --image X --user-data " + dir + "/none", 22, "no such file"},
		{"boot a --image X --meta-data /dev/zero", 22, "64 MiB"},
		{"boot a --image X --network-config=", 22, "network-config"},
		{"boot a --image X --domain-xml " + dir + "/none", 22, "none"},
		{"ls extra", 22, "extra"},
		{"ls -o xml", 22, "xml"},
		{"ls --progress loud", 22, "loud"},
		{"ls --timeout 0s", 22, "timeout"},
		{"migrate a b --on-stall hope", 22, "postcopy or pause"},
		{"migrate a b --parallel 2 --postcopy", 22, "exclude each other"},
		{"migrate a b --bandwidth 100", 22, "512M"},
		{"migrate a b --downtime 0s", 22, "--downtime"},
		{"migrate --recover", 22, "VM [DEST]"},
		{"ls --connect qemu+tcp://127.0.1.9:1/system", 1, "127.0.1.9"},
		{"ls --config " + config, 22, "line 2"},
		{"ls --config " + dir + "/none.yaml", 22, "none.yaml"},
		{"image ls -c " + dir + "/none.conf", 22, "none.conf"},
		{"image ls --id nobody", 22, "client.nobody"},
		{"image ls -n client.nobody", 22, "client.nobody"},
		{"image info nothing", 2, "nothing"},
		{"image rm nothing", 2, "nothing"},
		{"image import " + dir + "/none", 2, "none"},
		{"image import " + backed, 22, "/etc/passwd"},
		{"image import " + cut, 22, "cut"},
		{"image import " + cut + " --format raw", 22, "qcow2"},
		{"image import " + testLab.Guest + " --format qcow2", 22, "qcow2"},
		{"image import " + testLab.Guest + " --max-size 1M", 22, "limit"},
		{"image import " + testLab.Guest + " --name a:b", 22, `':'`},
		{"volume create", 22, "--size"},
		{"volume create x --size 512M", 22, "GiB"},
		{"volume create x --name y --size 1G", 22, "twice"},
		{"volume create x --size 1G --count 0", 22, "count"},
		{"volume create x --image nothing", 2, "nothing"},
		{"volume create x --image a --volume b", 22, "one of"},
		{"volume clone", 22, "VOLUME[@SNAP] is missing"},
		{"volume clone nothing", 2, "volume-nothing"},
		{"volume clone nothing@x", 2, "volume-nothing"},
		{"volume clone a b c", 22, `unexpected argument "b"`},
		{"volume create x --volume nothing --max-clone-depth -1", 22, "below 0"},
		{"volume info nothing", 2, "volume-nothing"},
		{"volume info a:b", 22, "':'"},
		{"volume rm nothing", 2, "volume-nothing"},
		{"volume rm nothing --trash", 2, "volume-nothing"},
		{"volume rm nothing --trash --expires soon", 22, "soon"},
		{"volume rm nothing --expires 1d", 22, "--trash"},
		{"volume restore nothing", 2, "not in the trash"},
		{"volume purge nothing", 2, "not in the trash"},
		{"volume purge --force", 22, "one volume"},
		{"volume resize nothing 10", 22, "unit"},
		{"volume resize nothing +1G", 2, "volume-nothing"},
		{"volume flatten nothing", 2, "volume-nothing"},
		{"volume snapshot create", 22, "VOLUME is missing"},
		{"volume snapshot create nothing", 2, "volume-nothing"},
		{"volume snapshot create nothing a:b", 22, "':'"},
		{"volume snapshot ls nothing", 2, "volume-nothing"},
		{"volume snapshot rm nothing", 2, "nothing"},
		{"volume snapshot rollback nothing x", 2, "volume-nothing"},
		{"volume qos nothing vdb", 2, "nothing"},
		{"attach a b --total-bytes-sec 5", 22, "unit"},
		{"attach a b --total-bytes-sec 5M --read-bytes-sec 5M", 22, "excludes"},
		{"attach a b --read-iops-sec 5M", 22, "not a number"},
		{"disk info nothing", 2, "nothing_disk"},
		{"disk rm nothing", 2, "nothing_disk"},
		{"disk rm", 22, "UUID|IMAGE is missing"},
		{"disk rm nothing nowhere nothing", 2, "nowhere_disk"},
		{"rm nothing nowhere --ignore-not-found", 0, ""},
		{"info nothing", 2, "nothing"},
		{"start nothing", 2, "nothing"},
		{"stop nothing", 2, "nothing"},
		{"rm nothing", 2, "nothing"},
		{"rm nothing --ignore-not-found", 0, ""},
		{"resize nothing 1G", 2, "nothing"},
		{"resize nothing", 22, "SIZE"},
		{"resize --confirm", 22, "VM is missing"},
		{"resize --confirm a 10G", 22, `"10G"`},
		{"resize --confirm --revert a", 22, "exclude"},
		{"resize a 10G --force", 22, "--revert"},
		{"resize --confirm nothing", 2, "nothing"},
		{"resize --revert nothing", 2, "nothing"},
		{"resize nothing 1G --revertible", 2, "nothing"},
		{"image create", 22, "VM is missing"},
		{"image create nothing", 2, "nothing"},
		{"image create nothing --name a@b", 22, "snapshot"},
		{"image create nothing --name=", 22, "empty"},
		{"rescue a", 22, "--image"},
		{"rescue nothing --image X", 2, "nothing"},
		{"unrescue nothing", 2, "nothing"},
		{"rebuild a", 22, "--image"},
		{"rebuild nothing --image X", 2, "nothing"},
		{"migrate nothing compute2", 2, "nothing"},
		{"migrate nothing compute2 --check --no-check", 22, "exclude"},
		{"attach nothing nothing", 2, "nothing"},
		{"detach nothing nothing", 2, "nothing"},
		{"lab env --dir " + dir, 1, dir},
	}
	for _, tt := range tests {
		t.Run(tt.typed, func(t *testing.T) {
			stdout, stderr, code := vmdiskIs(t, append([]string{"--progress", "none"}, strings.Fields(tt.typed)...)...)
			if code != tt.code || !strings.Contains(stderr, tt.says) {
				t.Errorf("exit code %d, want %d with %q: %s", code, tt.code, tt.says, stderr)
			}
			if stdout != "" {
				t.Errorf("standard output: %s", stdout)
			}
			if tt.code != 0 && !strings.HasPrefix(stderr, "vmdisk: ") {
				t.Errorf("standard error begins with %.40q", stderr)
			}
		})
	}
}

// A cluster that does not answer gives 110 in time.
func TestClusterDown(t *testing.T) {
	if err := testLab.Mon().Freeze(t.Context()); err != nil {
		t.Fatal(err)
	}
	_, stderr, code := vmdiskIs(t, "image", "ls", "--timeout", "2s")
	if err := testLab.Mon().Thaw(context.WithoutCancel(t.Context())); err != nil {
		t.Fatal(err)
	}
	if code != exitTimeout || !strings.Contains(stderr, "monitor") {
		t.Errorf("exit code %d: %s", code, stderr)
	}
	works(t, "image", "ls")
}

// CEPH_ARGS and the file are heard, in that order, after flags.
func TestPrecedence(t *testing.T) {
	file := filepath.Join(t.TempDir(), "config.yaml")
	if err := os.WriteFile(file, []byte("id: nobody\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, stderr, code := vmdiskIs(t, "image", "ls", "--config", file); code != exitBadInput || !strings.Contains(stderr, "client.nobody") {
		t.Errorf("from the file: exit code %d: %s", code, stderr)
	}
	t.Setenv("CEPH_ARGS", "--id glance")
	works(t, "image", "ls", "--config", file)
	if _, stderr, code := vmdiskIs(t, "image", "ls", "--config", file, "--id", "nobody2"); code != exitBadInput || !strings.Contains(stderr, "client.nobody2") {
		t.Errorf("from the flag: exit code %d: %s", code, stderr)
	}
}

// A volume's life as a script sees it.
func TestVolumeStory(t *testing.T) {
	atEnd(t, "volume", "rm", "story-1")
	atEnd(t, "volume", "rm", "story-2")
	atEnd(t, "volume", "rm", "story-copy")
	var many []struct{ ID, Image string }
	decode(t, works(t, "volume", "create", "story", "--size", "1G", "--count", "2", "-o", "json"), &many)
	if len(many) != 2 || many[1].ID != "story-2" || many[1].Image != "volume-story-2" {
		t.Errorf("made %+v", many)
	}
	var s struct {
		ID, Name, Kind string
		Protected      bool
	}
	decode(t, works(t, "volume", "snapshot", "create", "story-1", "monday", "-o", "json"), &s)
	if s.ID != "monday" || s.Name != "snapshot-monday" || s.Kind != "snapshot" || !s.Protected {
		t.Errorf("snapshot is %+v", s)
	}
	works(t, "volume", "clone", "story-1@monday", "story-copy", "--size", "2G")
	var v struct {
		ID, Parent string
		Size       int64
		Snapshots  []struct{ Clones []string }
		Features   []string
	}
	decode(t, works(t, "volume", "info", "story-copy", "-o", "json"), &v)
	if v.Size != 2<<30 || v.Parent != "volumes/volume-story-1@snapshot-monday" || len(v.Features) == 0 {
		t.Errorf("clone is %+v", v)
	}
	if _, stderr, code := vmdiskIs(t, "volume", "rm", "story-1"); code != exitDependent || !strings.Contains(stderr, "vmdisk volume flatten story-copy") {
		t.Errorf("rm with clones: exit code %d: %s", code, stderr)
	}
	works(t, "volume", "flatten", "story-copy")
	works(t, "volume", "snapshot", "rollback", "story-1", "monday")
	works(t, "volume", "snapshot", "rm", "story-1@monday")
	works(t, "volume", "resize", "story-1", "+1G")
	works(t, "volume", "rm", "story-1", "--trash")
	var trash []struct{ ID string }
	decode(t, works(t, "volume", "ls", "--trash", "-o", "json"), &trash)
	if len(trash) != 1 || trash[0].ID != "story-1" {
		t.Errorf("the trash is %+v", trash)
	}
	works(t, "volume", "restore", "story-1")
	for _, v := range []string{"story-1", "story-2", "story-copy"} {
		works(t, "volume", "rm", v)
	}
}

func TestSecret(t *testing.T) {
	var s struct{ UUID, User, Usage string }
	decode(t, works(t, "secret", "set", "-o", "json"), &s)
	var all []struct{ UUID, User, Usage string }
	decode(t, works(t, "secret", "ls", "-o", "json"), &all)
	if s.User != "cinder" || s.Usage != "client.cinder secret" || len(all) != 1 || all[0].UUID != s.UUID {
		t.Errorf("set %+v, listed %+v", s, all)
	}
}

func TestHelp(t *testing.T) {
	for _, args := range [][]string{{"--help"}, {"boot", "--help"}, {"image", "--help"}, {"image", "import", "--help"}, {}} {
		stdout, stderr, code := vmdiskIs(t, args...)
		if code != 0 || stderr != "" || !strings.Contains(stdout, "USAGE") {
			t.Errorf("%v: exit code %d, %q", args, code, stderr)
		}
	}
}
