// Faults from outside in the middle of a migration: daemons and QEMUs are killed and
// frozen on either side, in each of its phases. Whatever happens, the machine then runs
// once, no acknowledged write is missing, and nothing of it is left on the other host.

package vmdisk

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/vmdisk/vmdisk/disk"
	"github.com/vmdisk/vmdisk/domain"
	"github.com/vmdisk/vmdisk/lab"
	"github.com/vmdisk/vmdisk/migrate"
	"github.com/vmdisk/vmdisk/secret"
)

// hostSilence is how long a host or a cluster that does not answer is waited for.
const hostSilence = 8 * time.Second

// traveller is the machine that is moved, and where it is.
type traveller struct {
	VM
	console
	at     int
	policy migrate.Policy // with which it is moved
}

func (m *traveller) there() int { return 1 - m.at }

// leaves begins to move the machine, at 1 MiB a second, and returns when its memory is
// being copied.
func (m *traveller) leaves(t *testing.T) (ended <-chan error) {
	t.Helper()
	return m.leavesIn(t, hostSilence, migrate.LeastPatience)
}

// leavesIn is that with other time-outs.
func (m *traveller) leavesIn(t *testing.T, timeout, patience time.Duration) (ended <-chan error) {
	t.Helper()
	m.noSecretThere(t)
	m.speed(t, "1")
	copying := make(chan struct{}, 1)
	h := impatient(t, m.at, timeout, func(e Event) {
		if e.Kind == Progress && e.Op == "migrate" && e.Bytes > 0 {
			select {
			case copying <- struct{}{}:
			default:
			}
		}
	})
	h.leastPatience = patience
	return m.leavesWith(t, h, copying)
}

func (m *traveller) leavesWith(t *testing.T, h *Host, reached <-chan struct{}) (ended <-chan error) {
	t.Helper()
	done := make(chan error, 1)
	go func() {
		_, err := h.Migrate(t.Context(), m.UUID, testLab.Hosts[m.there()].URI, MigrateOptions{Policy: m.policy})
		done <- err
	}()
	select {
	case <-reached:
	case err := <-done:
		t.Fatalf("it ended too early: %v", err)
	case <-waiting(t).Done():
		t.Fatal("it does not get that far")
	}
	return done
}

func (m *traveller) speed(t *testing.T, mib string) { virsh(t, m.at, "migrate-setspeed", m.UUID, mib) }

// fast lets the copying go on at full speed.
func (m *traveller) fast(t *testing.T) { m.speed(t, "1024") }

// handsOver has the machine's memory copied while the destination's libvirtd is frozen,
// and returns when the source has stopped it and waits for the destination to go on.
func (m *traveller) handsOver(t *testing.T, patience time.Duration) (ended <-chan error, libvirtd lab.Part) {
	t.Helper()
	ended, libvirtd = m.leavesIn(t, hostSilence, patience), testLab.Hosts[m.there()].Libvirtd()
	must(t, libvirtd.Freeze(t.Context()))
	m.fast(t)
	m.phase(t, m.at, "perform3_done")
	return ended, libvirtd
}

// settled repairs, and expects the machine on a host and nowhere else.
func (m *traveller) settled(t *testing.T, at int) {
	t.Helper()
	_, err := open(t, at).Repair(t.Context(), RepairOptions{VM: m.UUID})
	must(t, err)
	for i := range testLab.Hosts {
		r, err := open(t, i).Repair(t.Context(), RepairOptions{VM: m.UUID})
		if err != nil || r.Changed() || len(r.Operations)+len(r.Machines) > 0 {
			t.Errorf("a second repair, on %s, found %+v, %v", testLab.Hosts[i].Name, r, err)
		}
	}
	record, err := mustCluster(t, open(t, at)).Machine(t.Context(), disk.VMPool, m.UUID)
	if err != nil || record.Host != testLab.Hosts[at].Name || !record.Running {
		t.Errorf("the record is %+v, %v", record, err)
	}
	here, err := domain.Inspect(t.Context(), connected(t, at), m.UUID)
	if err != nil || here.State != "running" {
		t.Errorf("on %s it is %+v, %v", testLab.Hosts[at].Name, here, err)
	}
	there, err := domain.Inspect(t.Context(), connected(t, 1-at), m.UUID)
	if !errors.Is(err, domain.ErrNotFound) {
		t.Errorf("on %s it is %+v, %v", testLab.Hosts[1-at].Name, there, err)
	}
	stayed := m.at == at
	if m.at = at; stayed {
		all, err := secret.List(connected(t, m.there()))
		if err != nil || len(all) > 0 {
			t.Errorf("secrets left on the other host: %v, %v", all, err)
		}
		m.fast(t)
	}
	m.whole(t)
}

// whole says that the machine writes, and that nothing acknowledged is missing.
func (m *traveller) whole(t *testing.T) {
	t.Helper()
	m.writes(t, m.at, "vda")
	acked := m.acked(t, "vda")
	blocks, err := testLab.Blocks(t.Context(), disk.VMPool+"/"+disk.RootDiskName(m.UUID))
	must(t, err)
	must(t, blocks.Check(acked))
}

// noSecretThere removes the destination's secret, so that the migration has to set it.
func (m *traveller) noSecretThere(t *testing.T) {
	t.Helper()
	conn := connected(t, m.there())
	all, err := secret.List(conn)
	must(t, err)
	for _, s := range all {
		must(t, secret.Remove(conn, s.UUID))
	}
}

// wellAgain has a host's libvirtd run, whatever a test has done to it.
func wellAgain(host *lab.Host) error {
	ctx := context.Background()
	if host.Whole().Condition() != lab.Dead {
		if err := host.Whole().Thaw(ctx); err != nil {
			return err
		}
	}
	return host.Libvirtd().Start(ctx)
}

// restarted starts a host's libvirtd again.
func restarted(t *testing.T, i int) {
	t.Helper()
	libvirtd := testLab.Hosts[i].Libvirtd()
	must(t, libvirtd.Kill(t.Context()))
	must(t, libvirtd.Start(t.Context()))
}

// result is how a migration ended.
func result(t *testing.T, ended <-chan error) error {
	t.Helper()
	select {
	case err := <-ended:
		return err
	case <-waiting(t).Done():
		t.Fatal("the migration does not end")
		return nil
	}
}

// fails expects an error.
func fails(t *testing.T, err, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Errorf("error is %v, want %v", err, want)
	}
}

// hooked has a host's libvirtd call a script whenever something becomes of a machine,
// until release. The script knows $1, the machine, $2, what becomes of it, and $3.
func hooked(t *testing.T, i int, script string) (release func()) {
	t.Helper()
	host := testLab.Hosts[i]
	hook := filepath.Join(host.Dir, "etc/libvirt/hooks/qemu")
	must(t, os.WriteFile(hook, []byte("#!/bin/sh\n"+script), 0o755))
	restarted(t, i)
	released := false
	release = func() {
		if released {
			return
		}
		released = true
		must(t, os.Remove(hook))
		ctx := context.WithoutCancel(t.Context())
		must(t, host.Libvirtd().Kill(ctx))
		must(t, host.Libvirtd().Start(ctx))
	}
	t.Cleanup(release)
	return release
}

// hangsAt is a script that says in a file that a moment has come, and stays in it until
// the file is gone.
func hangsAt(t *testing.T, moment string) (script string, reached <-chan struct{}, release func()) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "reached")
	come := make(chan struct{})
	ctx := waiting(t)
	go func() {
		for ctx.Err() == nil {
			if _, err := os.Stat(file); err == nil {
				close(come)
				return
			}
			time.Sleep(20 * time.Millisecond)
		}
	}()
	release = func() { _ = os.Remove(file) }
	t.Cleanup(release)
	return fmt.Sprintf("cat > /dev/null\n[ \"$2 $3\" = '%s' ] || exit 0\n: > %s\nwhile [ -e %s ]; do sleep 0.1; done\n", moment, file, file), come, release
}

func TestMigrationFaults(t *testing.T) {
	heals(t)
	travels(t, []journey{
		{"secret removed after the preflight", secretRemovedAfterPreflight},
		{"source libvirtd killed in Perform", sourceLibvirtdKilledInPerform},
		{"source libvirtd killed in Confirm", sourceLibvirtdKilledInConfirm},
		{"destination libvirtd killed in Prepare", destLibvirtdKilledInPrepare},
		{"destination libvirtd killed at Finish", destLibvirtdKilledAtFinish},
		{"destination guest goes on too late", destGoesOnTooLate},
		{"destination QEMU frozen, source libvirtd killed", destQEMUFrozen},
		{"destination gone in Perform", destGone},
		{"destination QEMU frozen in Perform", destQEMUFrozenInPerform},
		{"destination frozen in Perform", destFrozen},
		{"source frozen with the disk's lock", sourceFrozenWithLock},
		{"client killed", clientKilled},
		{"source QEMU killed in Perform", sourceQEMUKilled},
	})
}

// heals has the hosts well again when the test ends, and the cluster soon forget who
// died.
func heals(t *testing.T) {
	unfenced(t)
	forgetsSoon(t)
	for i := range testLab.Hosts {
		t.Cleanup(func() { must(t, wellAgain(testLab.Hosts[i])) })
	}
}

// journey is something that happens to a machine that is moved.
type journey struct {
	name string
	run  func(*testing.T, *traveller)
}

// travels has all of it happen to one machine that writes all the time.
func travels(t *testing.T, all []journey) {
	vm := guest(t, open(t, 0))
	m := &traveller{VM: vm, console: consoleOf(vm.Name)}
	m.writes(t, 0, "vda")
	for _, tt := range all {
		if !t.Run(tt.name, func(t *testing.T) { tt.run(t, m) }) {
			return // where it is now, is not known
		}
	}
}

func secretRemovedAfterPreflight(t *testing.T, m *traveller) {
	m.noSecretThere(t)
	h := open(t, m.at)
	h.fault = func(_, step string, when phase) error {
		if step == "check" && when == after {
			m.noSecretThere(t)
		}
		return nil
	}
	_, err := h.Migrate(t.Context(), m.UUID, testLab.Hosts[m.there()].URI, MigrateOptions{})
	if err == nil || !strings.Contains(err.Error(), "secret") {
		t.Errorf("error is %v", err)
	}
	m.settled(t, m.at)
}

func sourceLibvirtdKilledInPerform(t *testing.T, m *traveller) {
	ended := m.leaves(t)
	must(t, testLab.Hosts[m.at].Libvirtd().Kill(t.Context()))
	fails(t, result(t, ended), migrate.ErrUnknown)
	must(t, testLab.Hosts[m.at].Libvirtd().Start(t.Context()))
	m.settled(t, m.at)
}

// The destination's guest runs and the source's is gone; only its definition is left.
func sourceLibvirtdKilledInConfirm(t *testing.T, m *traveller) {
	script, reached, release := hangsAt(t, "stopped end")
	unhook := hooked(t, m.at, script)
	ended := m.leavesWith(t, open(t, m.at), reached)
	must(t, testLab.Hosts[m.at].Libvirtd().Kill(t.Context()))
	release()
	fails(t, result(t, ended), migrate.ErrUnknown)
	unhook()
	m.settled(t, m.there())
}

func destLibvirtdKilledInPrepare(t *testing.T, m *traveller) {
	m.noSecretThere(t)
	script, reached, release := hangsAt(t, "migrate begin")
	unhook := hooked(t, m.there(), script)
	ended := m.leavesWith(t, open(t, m.at), reached)
	must(t, testLab.Hosts[m.there()].Libvirtd().Kill(t.Context()))
	release()
	fails(t, result(t, ended), migrate.ErrUnknown)
	unhook()
	m.settled(t, m.at)
}

func destLibvirtdKilledAtFinish(t *testing.T, m *traveller) {
	ended, libvirtd := m.handsOver(t, migrate.LeastPatience)
	must(t, libvirtd.Kill(t.Context()))
	fails(t, result(t, ended), migrate.ErrUnknown)
	must(t, libvirtd.Start(t.Context()))
	m.settled(t, m.at)
}

// The destination's QEMU is told to go on, and does so when the source, which has heard
// nothing of it, has gone on itself: both run.
func destGoesOnTooLate(t *testing.T, m *traveller) {
	ended, libvirtd := m.handsOver(t, migrate.LeastPatience)
	qemu, err := testLab.Hosts[m.there()].QEMU(m.Name)
	must(t, err)
	must(t, qemu.Freeze(t.Context()))
	must(t, libvirtd.Thaw(t.Context()))
	m.phase(t, m.there(), "finish3")
	must(t, libvirtd.Kill(t.Context()))
	fails(t, result(t, ended), migrate.ErrUnknown)
	becomes(t, m.at, m.UUID, "running on the source", func(c domain.Condition) bool { return !c.Paused })
	must(t, qemu.Thaw(t.Context()))
	goesOn(t, testLab.Hosts[m.there()], m.Name)
	m.writes(t, m.there(), "vda")
	must(t, libvirtd.Start(t.Context()))
	m.settled(t, m.at)
}

// phase waits until a host's libvirtd is in a phase of the migration, as it says in
// what it keeps for its next start.
func (m *traveller) phase(t *testing.T, host int, phase string) {
	t.Helper()
	for ctx := waiting(t); ; {
		out, _ := testLab.Hosts[host].Command(ctx, "cat", "/run/libvirt/qemu/"+m.Name+".xml").Output() // it comes and goes
		if strings.Contains(string(out), "phase='"+phase+"'") {
			return
		}
		if err := sleep(ctx, 50*time.Millisecond); err != nil {
			_, job, _ := strings.Cut(string(out), "<job ")
			job, _, _ = strings.Cut(job, ">")
			t.Fatalf("it does not come to %s, but %s", phase, job)
		}
	}
}

// goesOn tells a machine's QEMU to go on, as a libvirtd does that dies thereafter.
func goesOn(t *testing.T, host *lab.Host, vm string) {
	t.Helper()
	found, err := filepath.Glob(filepath.Join(host.Dir, "lib/libvirt/qemu/domain-*-"+vm[:20]+"/monitor.sock"))
	if err != nil || len(found) != 1 {
		t.Fatalf("monitors: %v, %v", found, err)
	}
	dir, err := os.Open(filepath.Dir(found[0])) // the path may be too long for a socket's
	must(t, err)
	defer func() { must(t, dir.Close()) }()
	conn, err := net.Dial("unix", fmt.Sprintf("/proc/self/fd/%d/monitor.sock", dir.Fd()))
	must(t, err)
	defer func() { must(t, conn.Close()) }()
	answers := json.NewDecoder(conn)
	for _, command := range []string{"", `{"execute":"qmp_capabilities"}`, `{"execute":"cont"}`} {
		_, err := conn.Write([]byte(command))
		must(t, err)
		for {
			var answer map[string]any
			must(t, answers.Decode(&answer))
			if answer["error"] != nil {
				t.Fatalf("%s: %v", command, answer)
			}
			if answer["event"] == nil {
				break
			}
		}
	}
}

// The source has stopped the guest and knows no more of it; whether it goes on is up to
// the destination, whose QEMU sleeps.
func destQEMUFrozen(t *testing.T, m *traveller) {
	ended, libvirtd := m.handsOver(t, migrate.LeastPatience)
	qemu, err := testLab.Hosts[m.there()].QEMU(m.Name)
	must(t, err)
	must(t, qemu.Freeze(t.Context()))
	must(t, libvirtd.Thaw(t.Context()))
	m.phase(t, m.there(), "finish3")
	must(t, testLab.Hosts[m.at].Libvirtd().Kill(t.Context()))
	fails(t, result(t, ended), migrate.ErrUnknown)
	must(t, testLab.Hosts[m.at].Libvirtd().Start(t.Context()))
	becomes(t, m.at, m.UUID, "paused on the source", func(c domain.Condition) bool { return c.Paused })
	must(t, qemu.Thaw(t.Context()))
	m.settled(t, m.there())
}

// A destination that dies for good does not keep the machine from being worked on.
func destGone(t *testing.T, m *traveller) {
	ended := m.leaves(t)
	must(t, testLab.Hosts[m.there()].Libvirtd().Kill(t.Context()))
	fails(t, result(t, ended), migrate.ErrUnknown)
	h := impatient(t, m.at, hostSilence, nil)
	_, err := h.Resize(t.Context(), m.Name, 80<<20, false)
	must(t, err)
	m.writes(t, m.at, "vda")
	must(t, testLab.Hosts[m.there()].Libvirtd().Start(t.Context()))
	_, err = h.Migrate(t.Context(), m.Name, testLab.Hosts[m.there()].URI, MigrateOptions{})
	var e *Error
	if !errors.Is(err, disk.ErrInUse) || !errors.As(err, &e) || !strings.HasSuffix(e.Next, "vmdisk repair "+m.Name) {
		t.Errorf("a migration to where it was left: %v", err)
	}
	_, err = asAdmin(t, m.there()).Repair(t.Context(), RepairOptions{VM: m.UUID})
	must(t, err)
	m.noSecretThere(t) // nobody answered who could have removed it
	m.settled(t, m.at)
}

// A migration that stands still is aborted, and that is the end of it.
func destQEMUFrozenInPerform(t *testing.T, m *traveller) {
	ended := m.leavesIn(t, hostSilence, 0)
	qemu, err := testLab.Hosts[m.there()].QEMU(m.Name)
	must(t, err)
	must(t, qemu.Freeze(t.Context()))
	m.fast(t)                        // until the network's buffers are full
	m.phase(t, m.there(), "finish3") // of one that is aborted
	must(t, qemu.Thaw(t.Context()))
	fails(t, result(t, ended), migrate.ErrStalled)
	if leftInJournal(t, open(t, m.at)) {
		t.Error("it is in the journal")
	}
	m.settled(t, m.at)
}

// A destination that nothing comes from any more, as behind a cut cable: it is not
// waited for, and the guest runs on.
func destFrozen(t *testing.T, m *traveller) {
	ended := m.leavesIn(t, silence, 0)
	dest := testLab.Hosts[m.there()].Whole()
	must(t, dest.Freeze(t.Context()))
	m.fast(t) // until the network's buffers are full
	since := time.Now()
	err := result(t, ended)
	fails(t, err, migrate.ErrUnknown)
	endsWithin(t, "migrate", err, since, patience+2*silence) // to be aborted, and to be told from one that lives
	m.writes(t, m.at, "vda")
	must(t, dest.Thaw(t.Context()))
	m.settled(t, m.at)
}

// The source's QEMU has the disk's lock, which it would hand over if it was asked. It
// freezes before that, and libvirt waits for its answer: the migration is given up, a
// repair ends what is left of the source, and the guest, on the destination, writes
// when the cluster has forgotten it.
func sourceFrozenWithLock(t *testing.T, m *traveller) {
	n := disk.Name{Pool: disk.VMPool, Image: disk.RootDiskName(m.UUID)}
	cluster := mustCluster(t, open(t, m.at))
	ended, libvirtd := m.handsOver(t, hostSilence)
	before, err := cluster.Use(t.Context(), n)
	if err != nil || before.Lock == "" {
		t.Fatalf("the lock before is %+v, %v", before, err)
	}
	qemu, err := testLab.Hosts[m.at].QEMU(m.Name)
	must(t, err)
	must(t, qemu.Freeze(t.Context()))
	must(t, libvirtd.Thaw(t.Context()))
	err = result(t, ended)
	fails(t, err, migrate.ErrUnknown)
	fails(t, err, domain.ErrTimeout)
	m.settled(t, m.there())
	after, err := cluster.Use(t.Context(), n)
	if err != nil || after.Lock == "" || after.Lock == before.Lock {
		t.Errorf("the lock after is %+v, %v; before it was %+v", after, err, before)
	}
}

// The hosts go on without the client, and the next command waits for them.
func clientKilled(t *testing.T, m *traveller) {
	m.noSecretThere(t)
	m.speed(t, "1")
	client, _ := sleeper{Do: "migrate", VM: m.UUID, At: m.at, Dest: testLab.Hosts[m.there()].URI}.runs(t, "copying")
	must(t, client.Process.Kill())
	_ = client.Wait()
	becomes(t, m.at, m.UUID, "on its way", func(c domain.Condition) bool { return c.Job })
	m.fast(t)
	m.settled(t, m.there())
}

func sourceQEMUKilled(t *testing.T, m *traveller) {
	m.lost(t, m.leaves(t), m.at)
}

// lost kills one of a move's QEMUs, with which the machine's memory is lost.
func (m *traveller) lost(t *testing.T, ended <-chan error, killed int) {
	t.Helper()
	qemu, err := testLab.Hosts[killed].QEMU(m.Name)
	must(t, err)
	must(t, qemu.Kill(t.Context()))
	err = result(t, ended)
	fails(t, err, migrate.ErrLost)
	if !strings.Contains(err.Error(), "started again from its disk") {
		t.Errorf("error is %v", err)
	}
	m.settled(t, m.at)
}
