// The lab on a real machine: it comes up, its parts fail and come back, and it
// goes without a trace.

package lab

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// child, in the environment, makes the test program an Up that can be killed.
const child = "VMDISK_LAB_TEST_UP"

func TestMain(m *testing.M) {
	if dir := os.Getenv(child); dir != "" {
		_, err := Up(context.Background(), Options{Dir: dir, Store: MemStore, Report: func(format string, args ...any) {
			fmt.Printf(format+"\n", args...)
		}})
		fmt.Println("end:", err)
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// shortDir returns a directory whose path leaves room for sockets, unlike
// t.TempDir. It is removed at the end if it is empty, and fails the test if not.
func shortDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "vml")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.Remove(dir); err != nil {
			t.Errorf("left behind: %v", err)
		}
	})
	return dir
}

// up makes a lab in a new directory that is gone at the end of the test.
func up(t *testing.T, o Options) *Lab {
	t.Helper()
	o.Dir = filepath.Join(shortDir(t), "lab")
	o.Report = t.Logf
	l, err := Up(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := Down(context.Background(), l.Dir); err != nil && !errors.Is(err, ErrNoLab) {
			t.Error(err)
		}
		nothingLeft(t, l)
	})
	return l
}

// nothingLeft asserts that a lab has gone with all that it made.
func nothingLeft(t *testing.T, l *Lab) {
	t.Helper()
	left, err := l.members()
	if err != nil || len(left) > 0 {
		t.Errorf("processes left: %v, %v", left, err)
	}
	mounts, err := os.ReadFile("/proc/self/mounts")
	if err != nil || bytes.Contains(mounts, []byte(l.Dir)) {
		t.Errorf("mounts left (%v):\n%s", err, mounts)
	}
	if _, err := os.Stat(l.Dir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("%s is left: %v", l.Dir, err)
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// deadline bounds one wait of a test.
func deadline(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	t.Cleanup(cancel)
	return ctx
}

// testMachine starts a guest on a host, from an overlay of the image, and
// returns its console and its disk.
func testMachine(t *testing.T, h *Host, name string) (*Console, string) {
	t.Helper()
	ctx := deadline(t)
	disk := filepath.Join(t.TempDir(), name+".qcow2")
	_, err := run(ctx, "qemu-img", "create", "-q", "-f", "qcow2", "-b", h.lab.Guest, "-F", "raw", disk)
	must(t, err)
	xml := filepath.Join(t.TempDir(), name+".xml")
	text := strings.ReplaceAll(selfTestXML(disk), selfTestName, name)
	text = strings.Replace(text, "<memballoon", "<channel type='unix'><target type='virtio' name='org.qemu.guest_agent.0'/></channel><memballoon", 1)
	must(t, os.WriteFile(xml, []byte(text), 0o644))
	_, err = h.virsh(ctx, "create", xml)
	must(t, err)
	c := h.lab.Console(h, name)
	must(t, guestWorks(ctx, c))
	return c, disk
}

func TestLab(t *testing.T) {
	l := up(t, Options{})

	t.Run("healthy", func(t *testing.T) {
		if s := l.Status(t.Context()); !s.Healthy() {
			t.Errorf("not healthy: %+v", s)
		}
		began := time.Now()
		again, err := Up(t.Context(), Options{Dir: l.Dir})
		must(t, err)
		if again.FSID != l.FSID || time.Since(began) > time.Second {
			t.Errorf("a second Up made %s of %s in %v", again.FSID, l.FSID, time.Since(began))
		}
		if _, err := Up(t.Context(), Options{Dir: l.Dir, OSDs: 2}); err == nil {
			t.Error("a lab with one OSD was passed off as one with two")
		}
		if _, err := Up(t.Context(), Options{Dir: l.Dir, Hosts: 3}); err == nil || !strings.Contains(err.Error(), "2 hosts, not 3") {
			t.Errorf("a lab of two hosts, asked for three: %v", err)
		}
		opened, err := Open(l.Dir)
		must(t, err)
		if got, want := fmt.Sprint(opened.Env()), fmt.Sprint(l.Env()); got != want {
			t.Errorf("Open: %s, Up: %s", got, want)
		}
	})
	t.Run("users", func(t *testing.T) {
		for _, user := range []string{"admin", "glance", "cinder", "cinder-backup"} {
			if info, err := os.Stat(l.Keyring(user)); err != nil || info.Mode().Perm() != 0o600 {
				t.Errorf("keyring of %s: %v, %v", user, info, err)
			}
		}
		if _, err := l.client(t.Context(), nil, "rbd", "glance", "ls", "images"); err != nil {
			t.Errorf("glance in images: %v", err)
		}
		if _, err := l.client(t.Context(), nil, "rbd", "glance", "ls", "volumes"); err == nil {
			t.Error("glance may look into volumes")
		}
		out, err := l.cephCommand(t.Context(), "osd", "pool", "ls")
		must(t, err)
		if got := strings.Fields(string(out)); len(got) != len(pools) {
			t.Errorf("pools: %v", got)
		}
	})
	t.Run("hosts", func(t *testing.T) {
		for _, h := range l.Hosts {
			out, err := h.Command(t.Context(), "hostname").Output()
			if err != nil || strings.TrimSpace(string(out)) != h.Name {
				t.Errorf("%s says %q: %v", h.Name, out, err)
			}
			must(t, h.offersOnlyQEMU(t.Context()))
		}
	})
	t.Run("osd killed and started", func(t *testing.T) { osdComesBack(t, l) })
	t.Run("osd frozen and thawed", func(t *testing.T) { osdThaws(t, l) })
	t.Run("mon frozen and thawed", func(t *testing.T) { monThaws(t, l) })
	t.Run("guest outlives libvirtd", func(t *testing.T) { guestOutlivesLibvirtd(t, l.Hosts[0]) })
	t.Run("guest is frozen by its agent", func(t *testing.T) { agentFreezes(t, l.Hosts[1]) })
	t.Run("guest travels", func(t *testing.T) { guestTravels(t, l) })
	t.Run("healthy in the end", func(t *testing.T) {
		must(t, l.healthOK(deadline(t)))
		must(t, l.sick(t.Context()))
	})
	must(t, l.Down(t.Context()))
	nothingLeft(t, l)
	if _, err := Open(l.Dir); !errors.Is(err, ErrNoLab) {
		t.Errorf("Open of a lab that is down: %v", err)
	}
	if err := l.OSD(0).Start(t.Context()); !errors.Is(err, ErrNoLab) {
		t.Errorf("Start of a lab that is down: %v", err)
	}
}

// Two labs live side by side; one of which a part has died is made again, and
// the other does not notice.
func TestTwoLabs(t *testing.T) {
	a := up(t, Options{Store: MemStore})
	b := up(t, Options{Store: MemStore, OSDs: 2, Hosts: 1})
	must(t, a.Mon().Kill(t.Context()))
	again, err := Up(t.Context(), Options{Dir: a.Dir, Store: MemStore, Report: t.Logf})
	must(t, err)
	if again.FSID == a.FSID {
		t.Error("a dead lab was handed out")
	}
	must(t, again.sick(t.Context()))
	must(t, b.sick(t.Context()))
	must(t, again.Down(t.Context()))
	must(t, b.sick(t.Context()))
}

// Up killed in the middle leaves nothing that Down does not find.
func TestUpKilled(t *testing.T) {
	dir := filepath.Join(shortDir(t), "lab")
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), child+"="+dir)
	out, err := cmd.StdoutPipe()
	must(t, err)
	must(t, cmd.Start())
	readUntil(t, out, "monitor answers")
	must(t, cmd.Process.Signal(syscall.SIGKILL))
	_ = cmd.Wait() // it says that it was killed
	s, err := loadState(dir)
	must(t, err)
	l := newLab(s, silent)
	if left, err := l.members(); err != nil || len(left) < 2 {
		t.Fatalf("only %v left of a lab in the making: %v", left, err)
	}
	if err := l.sick(t.Context()); err == nil {
		t.Error("a half lab passes for healthy")
	}
	must(t, Down(t.Context(), dir))
	nothingLeft(t, l)
}

// readUntil reads a program's output until it says something.
func readUntil(t *testing.T, r interface{ Read([]byte) (int, error) }, want string) {
	t.Helper()
	var said []byte
	buf := make([]byte, 4096)
	for !bytes.Contains(said, []byte(want)) {
		n, err := r.Read(buf)
		said = append(said, buf[:n]...)
		if err != nil {
			t.Fatalf("it never said %q: %v\n%s", want, err, said)
		}
	}
}

// Up that is cancelled cleans up behind itself.
func TestUpCancelled(t *testing.T) {
	dir := filepath.Join(shortDir(t), "lab")
	ctx, cancel := context.WithCancel(t.Context())
	var l *Lab
	_, err := Up(ctx, Options{Dir: dir, Store: MemStore, Report: func(format string, _ ...any) {
		if strings.Contains(format, "monitor answers") {
			s, _ := loadState(dir)
			l = newLab(s, silent)
			cancel()
		}
	}})
	if !errors.Is(err, context.Canceled) {
		t.Fatalf("error %v", err)
	}
	nothingLeft(t, l)
}

// A directory that is not a lab's is left alone.
func TestForeignDirectory(t *testing.T) {
	dir := shortDir(t)
	file := filepath.Join(dir, "thesis.txt")
	must(t, os.WriteFile(file, []byte("five years"), 0o600))
	if _, err := Up(t.Context(), Options{Dir: dir}); !errors.Is(err, ErrNotLab) {
		t.Errorf("Up: %v", err)
	}
	if err := Down(t.Context(), dir); !errors.Is(err, ErrNotLab) {
		t.Errorf("Down: %v", err)
	}
	must(t, os.Remove(file))
	if err := Down(t.Context(), dir); !errors.Is(err, ErrNoLab) {
		t.Errorf("Down of an empty directory: %v", err)
	}
}

// A state that names pids which others have by now is cleared, and the others
// live.
func TestDeadState(t *testing.T) {
	bystander := exec.Command("sleep", "infinity")
	must(t, bystander.Start())
	p, err := identify(bystander.Process.Pid)
	must(t, err)
	t.Cleanup(func() {
		_ = bystander.Process.Kill()
		_ = bystander.Wait()
	})
	for name, boot := range map[string]string{"pid used again": bootID(), "machine restarted": "another boot"} {
		t.Run(name, func(t *testing.T) {
			dir := shortDir(t)
			s, err := newState(Options{Dir: dir, OSDs: 1, Store: MemStore}, false)
			must(t, err)
			s.Phase, s.Boot = phaseUp, boot
			stranger := p
			if boot == s.Boot && boot == bootID() {
				stranger.Start--
			}
			must(t, s.record(partMon, stranger))
			must(t, os.WriteFile(filepath.Join(dir, "note"), nil, 0o600))
			if err := newLab(s, silent).sick(t.Context()); err == nil {
				t.Error("a dead lab passes for healthy")
			}
			must(t, Down(t.Context(), dir))
			if p.condition() == Dead {
				t.Error("a bystander was killed")
			}
			must(t, os.Remove(filepath.Join(dir, "note"))) // Down left what is not the lab's
		})
	}
}
