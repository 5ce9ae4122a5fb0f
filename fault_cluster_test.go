// The cluster falls silent in the middle of every kind of workflow.

package vmdisk

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/vmdisk/vmdisk/disk"
	"github.com/vmdisk/vmdisk/domain"
	"github.com/vmdisk/vmdisk/lab"
)

// silence is how long the tests of this file wait for what does not answer, and
// patience what a workflow may take until it says so.
const (
	silence  = 4 * time.Second
	patience = 3*silence + 3*time.Second
)

// struck is a workflow in which the cluster falls silent.
type struck struct {
	name string
	at   string // before this step
	work func(context.Context, *Host) error
	// back brings back what there was before.
	back func(context.Context, *Host) error

	// more is what it may take besides patience.
	more time.Duration

	plus, minus state // what it brings about, as lines of the cluster's state
}

// run does the work with a Host that stops before the step until it is let go.
func (s *struck) run(t *testing.T, h *Host, arrived, letGo func()) error {
	var once sync.Once
	h.fault = func(_, step string, when phase) error {
		if step == s.at && when == before {
			once.Do(func() { arrived(); letGo() })
		}
		return nil
	}
	defer once.Do(arrived) // it has failed already
	return s.work(t.Context(), h)
}

// learn notes what the work brings about.
func (s *struck) learn(t *testing.T, h *Host) {
	t.Helper()
	was := lines(t)
	must(t, s.work(t.Context(), h))
	now := lines(t)
	must(t, s.back(t.Context(), h))
	s.plus, s.minus = now.without(was), was.without(now)
	if len(s.plus)+len(s.minus) == 0 {
		t.Fatalf("%s leaves no trace", s.name)
	}
}

// lines is the state, with names in place of the IDs that are others each time.
func lines(t *testing.T) state {
	t.Helper()
	return stateNow(t).named()
}

// happened says whether the work is done, or not, by the state.
func (s *struck) happened(now state) bool {
	return len(s.plus.without(now)) == 0 && len(s.minus.without(now)) == len(s.minus)
}

// clusterFaults are the ways to fall silent, and to come back.
var clusterFaults = []struct {
	name     string
	part     func() lab.Part
	away     func(lab.Part, context.Context) error
	comeBack func(lab.Part, context.Context) error
}{
	{"mon frozen", func() lab.Part { return testLab.Mon() }, lab.Part.Freeze, lab.Part.Thaw},
	{"mon killed", func() lab.Part { return testLab.Mon() }, lab.Part.Kill, lab.Part.Start},
	{"osd frozen", func() lab.Part { return testLab.OSD(0) }, lab.Part.Freeze, lab.Part.Thaw},
	{"osd killed", func() lab.Part { return testLab.OSD(0) }, lab.Part.Kill, lab.Part.Start},
}

// A monitor or an OSD freezes or dies while workflows are in the middle of what they
// do: each ends in time and says that something did not answer, or has happened.
// Others that begin meanwhile say so too. When the cluster answers again, one repair
// brings each to "happened" or "did not happen".
func TestClusterFallsSilent(t *testing.T) {
	unfenced(t)
	all := workflowsToStrike(t)
	h := open(t, 0)
	for i := range all {
		all[i].learn(t, h)
	}
	for _, f := range clusterFaults {
		t.Run(f.name, func(t *testing.T) {
			was := lines(t)
			var atStep, over, later sync.WaitGroup
			silent := make(chan struct{})
			for i := range all {
				s, own := &all[i], impatient(t, 0, silence, nil)
				own.leastPatience = 0
				atStep.Add(1)
				over.Go(func() {
					var since time.Time
					err := s.run(t, own, atStep.Done, func() { <-silent; since = time.Now() })
					endsWithin(t, s.name, err, since, patience+s.more)
				})
			}
			atStep.Wait()
			must(t, f.away(f.part(), t.Context()))
			back := sync.OnceFunc(func() {
				must(t, f.comeBack(f.part(), context.WithoutCancel(t.Context())))
			})
			t.Cleanup(back)
			close(silent)
			over.Wait()
			for i := range all {
				later.Go(func() {
					since := time.Now()
					err := all[i].work(t.Context(), impatient(t, 0, silence, nil))
					endsInTime(t, "later "+all[i].name, err, since)
					if !errors.Is(err, disk.ErrTimeout) {
						t.Errorf("%s, begun when nobody answers: %v", all[i].name, err)
					}
				})
			}
			later.Wait()
			back()
			repaired(t, h)
			now := lines(t)
			want := was
			for i := range all {
				if s := &all[i]; s.happened(now) {
					want = append(want.without(s.minus), s.plus...)
				}
			}
			if extra, missing := now.without(want), want.without(now); len(extra)+len(missing) > 0 {
				t.Errorf("neither happened nor not:\nthere is   %s\nthere is no %s", strings.Join(extra, "\n           "), strings.Join(missing, "\n           "))
			}
			for i := range all {
				if s := &all[i]; s.happened(now) {
					must(t, s.back(t.Context(), h))
				}
			}
		})
	}
}

// endsInTime checks how a workflow ends while something does not answer.
func endsInTime(t *testing.T, name string, err error, since time.Time) {
	t.Helper()
	endsWithin(t, name, err, since, patience)
}

func endsWithin(t *testing.T, name string, err error, since time.Time, limit time.Duration) {
	t.Helper()
	took := time.Since(since)
	if err != nil && !timedOut(err) || took > limit {
		t.Errorf("%s ended after %v, at most %v are allowed: %v", name, took, limit, err)
	}
}

// repaired repairs what processes of this test have left, which live and do not
// answer for a moment, or for good.
func repaired(t *testing.T, h *Host) {
	t.Helper()
	for ctx := waiting(t); ; {
		r, err := h.Repair(ctx, RepairOptions{})
		must(t, err)
		open := slices.ContainsFunc(r.Operations, func(o Operation) bool { return !o.Done })
		if !open {
			break
		}
		must(t, sleep(ctx, leasePoll))
	}
	if again, err := h.Repair(t.Context(), RepairOptions{}); err != nil || again.Changed() {
		t.Errorf("a second repair changes %+v, %v", again, err)
	}
}

// workflowsToStrike are one of each kind, each on things of its own.
func workflowsToStrike(t *testing.T) []struck {
	h := open(t, 0)
	off := func() VM { return bootOf(t, h, BootOptions{Image: "guest", Memory: guestMemory, NoStart: true}) }
	on := func() VM { return bootOf(t, h, BootOptions{Image: "guest", Memory: guestMemory}) }
	// A secret that no machine needs goes with a move that has not happened.
	bootOf(t, open(t, 1), BootOptions{Image: "guest", Memory: guestMemory, NoStart: true})
	toAttach, toAttachLive, toDetach := volume(t, h), volume(t, h), volume(t, h)
	attachTo, attachLive, detachFrom, toMove := off(), on(), off(), on()
	must(t, attachIt(t.Context(), h, detachFrom, toDetach))
	t.Cleanup(func() { _, _ = h.Detach(context.WithoutCancel(t.Context()), detachFrom.Name, toDetach.ID) })
	boot := BootOptions{Image: "guest", UUID: "7a2d3c51-1f6e-4a0e-9a55-9d4c5e0c0a04", Size: 100 << 20, Memory: guestMemory}
	cold := BootOptions{Image: "guest", UUID: "7a2d3c51-1f6e-4a0e-9a55-9d4c5e0c0a03", Memory: guestMemory, NoStart: true}
	t.Cleanup(func() { removeAnywhere(t, boot.UUID); removeAnywhere(t, cold.UUID) })
	_, err := h.Boot(t.Context(), "struck-cold", cold)
	must(t, err)
	_, err = h.CreateVolume(t.Context(), "struck-old", disk.GiB)
	must(t, err)
	keepFor(t, h, "struck-old", "struck-new")
	return []struck{
		{name: "boot", at: "start",
			work: func(ctx context.Context, h *Host) error { _, err := h.Boot(ctx, "struck-boot", boot); return err },
			back: func(ctx context.Context, h *Host) error { _, err := h.Remove(ctx, boot.UUID); return err }},
		{name: "remove", at: "remove",
			work: func(ctx context.Context, h *Host) error { _, err := h.Remove(ctx, "struck-cold"); return err },
			back: func(ctx context.Context, h *Host) error { _, err := h.Boot(ctx, "struck-cold", cold); return err }},
		{name: "attach", at: "attach",
			work: func(ctx context.Context, h *Host) error { return attachIt(ctx, h, attachTo, toAttach) },
			back: func(ctx context.Context, h *Host) error { return detachIt(ctx, h, attachTo, toAttach) }},
		{name: "attach live", at: "claim",
			work: func(ctx context.Context, h *Host) error { return attachIt(ctx, h, attachLive, toAttachLive) },
			back: func(ctx context.Context, h *Host) error { return detachIt(ctx, h, attachLive, toAttachLive) }},
		{name: "detach", at: "release",
			work: func(ctx context.Context, h *Host) error { return detachIt(ctx, h, detachFrom, toDetach) },
			back: func(ctx context.Context, h *Host) error { return attachIt(ctx, h, detachFrom, toDetach) }},
		{name: "create volume", at: "create",
			work: func(ctx context.Context, h *Host) error {
				_, err := h.CreateVolume(ctx, "struck-new", disk.GiB)
				return err
			},
			back: func(ctx context.Context, h *Host) error { return h.RemoveVolume(ctx, "struck-new") }},
		{name: "remove volume", at: "remove",
			work: func(ctx context.Context, h *Host) error { return h.RemoveVolume(ctx, "struck-old") },
			back: func(ctx context.Context, h *Host) error {
				_, err := h.CreateVolume(ctx, "struck-old", disk.GiB)
				return err
			}},
		{name: "migrate", at: "copy", more: silence + lookTime, // to be aborted
			work: func(ctx context.Context, h *Host) error {
				_, err := h.Migrate(ctx, toMove.UUID, testLab.Hosts[1].URI, MigrateOptions{NoCheck: true})
				return err
			},
			back: func(ctx context.Context, _ *Host) error {
				_, err := open(t, 1).Migrate(ctx, toMove.UUID, testLab.Hosts[0].URI, MigrateOptions{})
				return err
			}},
	}
}

func attachIt(ctx context.Context, h *Host, vm VM, v disk.Volume) error {
	_, err := h.Attach(ctx, vm.Name, v.ID, AttachOptions{})
	return err
}

func detachIt(ctx context.Context, h *Host, vm VM, v disk.Volume) error {
	for {
		_, err := h.Detach(ctx, vm.Name, v.ID)
		if !errors.Is(err, domain.ErrPending) || ctx.Err() != nil {
			return err
		}
	}
}
