// Every step of every workflow is a place to die. The process that does the work is
// killed there with SIGKILL, before the step and after it, and then repair, or the
// same command again, must bring about what there was before, or what there is when
// all went well: nothing else.

package vmdisk

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/vmdisk/vmdisk/disk"
	"github.com/vmdisk/vmdisk/domain"
)

// crashVariable holds, for a process of this test program, where to die.
const crashVariable = "VMDISK_TEST_CRASH"

// crash is a workflow on what was made for it, and the point at which to die.
type crash struct {
	Workflow string
	Fixture  fixture
	Step     string
	Nth      int
	When     phase
}

// TestMainCrash is the process that dies.
func TestMainCrash(t *testing.T) {
	text := os.Getenv(crashVariable)
	if text == "" {
		return
	}
	var c crash
	must(t, json.Unmarshal([]byte(text), &c))
	h := open(t, 0)
	at := counter()
	h.fault = func(_, step string, when phase) error {
		if at(step, when) == (point{c.Step, c.Nth, c.When}) {
			_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
			select {}
		}
		return nil
	}
	err := find(t, c.Workflow).work(t.Context(), h, c.Fixture)
	t.Fatalf("the point was not reached: %v", err)
}

// die runs a workflow in a process that dies at the point.
func die(t *testing.T, w workflow, f fixture, p point) {
	t.Helper()
	text, err := json.Marshal(crash{w.name, f, p.step, p.nth, p.when})
	must(t, err)
	cmd := exec.Command(os.Args[0], "-test.run=^TestMainCrash$")
	cmd.Env = append(os.Environ(), crashVariable+"="+string(text), "VMDISK_LAB="+testLab.Dir)
	out, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL {
		t.Fatalf("it was not killed: %v\n%s", err, out)
	}
}

// fixture names what a workflow works on, for this process and the one that dies.
type fixture struct {
	VM, UUID, Volume string
}

// workflow is one that is written down.
type workflow struct {
	name string
	// setup makes what it works on.
	setup func(t *testing.T, h *Host) fixture
	work  func(context.Context, *Host, fixture) error
	// reverse brings back what there was before.
	reverse func(context.Context, *Host, fixture) error
	// over says that an error means that it has happened already.
	over error
}

func find(t *testing.T, name string) workflow {
	t.Helper()
	for _, w := range workflows {
		if w.name == name {
			return w
		}
	}
	t.Fatalf("no workflow %q", name)
	return workflow{}
}

var workflows = []workflow{
	{
		name:    "create volume",
		setup:   func(*testing.T, *Host) fixture { return fixture{Volume: "crash"} },
		work:    createCrashVolume,
		reverse: removeCrashVolume,
		over:    disk.ErrExists,
	},
	{
		name:  "create disk",
		setup: func(*testing.T, *Host) fixture { return fixture{UUID: crashUUID} },
		work: func(ctx context.Context, h *Host, f fixture) error {
			_, err := h.CreateDisk(ctx, DiskOptions{Image: "guest", Size: 100 << 20, UUID: f.UUID})
			return err
		},
		reverse: func(ctx context.Context, h *Host, f fixture) error { return h.RemoveDisk(ctx, f.UUID) },
		over:    disk.ErrExists,
	},
	{
		name:    "boot",
		setup:   func(*testing.T, *Host) fixture { return fixture{VM: "crash", UUID: crashUUID} },
		work:    bootCrashVM,
		reverse: removeCrashVM,
		over:    domain.ErrExists,
	},
	{
		name: "remove",
		setup: func(t *testing.T, h *Host) fixture {
			f := fixture{VM: "crash", UUID: crashUUID}
			must(t, bootCrashVM(t.Context(), h, f))
			t.Cleanup(func() { removeAnywhere(t, f.UUID) })
			return f
		},
		work:    removeCrashVM,
		reverse: bootCrashVM,
		over:    domain.ErrNotFound,
	},
	{
		name: "remove volume",
		setup: func(t *testing.T, h *Host) fixture {
			f := fixture{Volume: "crash"}
			must(t, createCrashVolume(t.Context(), h, f))
			t.Cleanup(func() { must(t, gone(removeCrashVolume(context.WithoutCancel(t.Context()), h, f))) })
			return f
		},
		work:    removeCrashVolume,
		reverse: createCrashVolume,
		over:    disk.ErrNotFound,
	},
	{name: "start", setup: offCrashVM, work: startCrashVM, reverse: stopCrashVM},
	{
		name: "stop",
		setup: func(t *testing.T, h *Host) fixture {
			f := offCrashVM(t, h)
			must(t, startCrashVM(t.Context(), h, f))
			return f
		},
		work: stopCrashVM, reverse: startCrashVM,
	},
	{name: "attach", setup: offCrashVM, work: attachCrashVolume, reverse: detachCrashVolume, over: domain.ErrExists},
	{
		name: "detach",
		setup: func(t *testing.T, h *Host) fixture {
			f := offCrashVM(t, h)
			must(t, attachCrashVolume(t.Context(), h, f))
			t.Cleanup(func() { _ = detachCrashVolume(context.WithoutCancel(t.Context()), h, f) })
			return f
		},
		work: detachCrashVolume, reverse: attachCrashVolume, over: domain.ErrNotFound,
	},
}

// offCrashVM is a machine that is off, and a volume.
func offCrashVM(t *testing.T, h *Host) fixture {
	v := volume(t, h)
	vm := bootOf(t, h, BootOptions{Image: "guest", Memory: guestMemory, NoStart: true})
	return fixture{VM: vm.Name, UUID: vm.UUID, Volume: v.ID}
}

func startCrashVM(ctx context.Context, h *Host, f fixture) error {
	_, err := h.Start(ctx, f.VM)
	return err
}

func stopCrashVM(ctx context.Context, h *Host, f fixture) error {
	_, err := h.Stop(ctx, f.VM, true)
	return err
}

func attachCrashVolume(ctx context.Context, h *Host, f fixture) error {
	_, err := h.Attach(ctx, f.VM, f.Volume, AttachOptions{})
	return err
}

func detachCrashVolume(ctx context.Context, h *Host, f fixture) error {
	_, err := h.Detach(ctx, f.VM, f.Volume)
	return err
}

// crashUUID is the machine's that dies and comes back.
const crashUUID = "7a2d3c51-1f6e-4a0e-9a55-9d4c5e0c0a02"

func createCrashVolume(ctx context.Context, h *Host, f fixture) error {
	_, err := h.CreateVolume(ctx, f.Volume, disk.GiB)
	return err
}

func removeCrashVolume(ctx context.Context, h *Host, f fixture) error {
	return h.RemoveVolume(ctx, f.Volume)
}

func bootCrashVM(ctx context.Context, h *Host, f fixture) error {
	_, err := h.Boot(ctx, f.VM, BootOptions{Image: "guest", UUID: f.UUID, Size: 100 << 20, Memory: guestMemory,
		Swap: 1 << 20})
	return err
}

func removeCrashVM(ctx context.Context, h *Host, f fixture) error {
	_, err := h.Remove(ctx, f.UUID)
	return err
}

func TestKilledAtEveryStep(t *testing.T) {
	for _, w := range workflows {
		t.Run(w.name, func(t *testing.T) {
			h := open(t, 0)
			f := w.setup(t, h)
			// The first run makes what stays for good, as rbd_trash.
			all := points(t, h, func() error { return w.work(t.Context(), h, f) })
			must(t, w.reverse(t.Context(), h, f))
			was := stateNow(t).named()
			must(t, w.work(t.Context(), h, f))
			done := stateNow(t).named()
			must(t, w.reverse(t.Context(), h, f))
			for _, p := range all {
				t.Run(p.String(), func(t *testing.T) { w.killedAt(t, h, f, p, was, done) })
			}
		})
	}
}

// killedAt dies before a step and is repaired, or after it and is done again.
func (w workflow) killedAt(t *testing.T, h *Host, f fixture, p point, was, done state) {
	die(t, w, f, p)
	if p.when == before {
		_, err := h.Repair(t.Context(), RepairOptions{})
		must(t, err)
	} else if err := w.work(t.Context(), h, f); err != nil && (w.over == nil || !errors.Is(err, w.over)) {
		t.Fatal(err)
	}
	now := stateNow(t).named()
	switch {
	case slices.Equal(now, done):
	case p.when == after:
		t.Errorf("not what there is when all went well (-want +got):\n%s", cmp.Diff(done, now))
	case !slices.Equal(now, was):
		t.Errorf("neither before nor after (-before +got):\n%s", cmp.Diff(was, now))
	}
	if !slices.Equal(now, was) {
		must(t, w.reverse(t.Context(), h, f))
	}
	if again, err := h.Repair(t.Context(), RepairOptions{}); err != nil || again.Changed() {
		t.Errorf("a second repair changed something: %+v, %v", again, err)
	}
}

// directoryLine is one of a pool's directory: names have ids, ids have names.
var directoryLine = regexp.MustCompile(`^omap ([a-z]+)/rbd_directory "(name|id)_([^"]+)" "(.*)"$`)

// lengthOfID comes before an id in an omap's value, and is not always the same.
var lengthOfID = regexp.MustCompile(`\\(v|f|r|x[0-9a-f]{2})\\x00\\x00\\x00<`)

// named has the names of images instead of their ids, which are others each time.
func (s state) named() state {
	names := map[string][]string{}
	for _, line := range s {
		if m := directoryLine.FindStringSubmatch(line); m != nil && m[2] == "name" {
			names[m[1]] = append(names[m[1]], m[3])
		}
	}
	var pairs []string
	for _, line := range s {
		m := directoryLine.FindStringSubmatch(line)
		if m == nil || m[2] != "id" {
			continue
		}
		for _, name := range names[m[1]] {
			if strings.HasSuffix(m[4], name) {
				pairs = append(pairs, m[3], "<"+m[1]+"/"+name+">")
			}
		}
	}
	to := strings.NewReplacer(pairs...)
	all := state{}
	for _, line := range s {
		all = append(all, lengthOfID.ReplaceAllString(to.Replace(line), "<"))
	}
	slices.Sort(all)
	return all
}
