// Faults in post-copy, where a guest's memory is on two hosts: it is fetched to the end
// if it can be, and said to be lost if it cannot.

package vmdisk

import (
	"errors"
	"os/exec"
	"strconv"
	"strings"
	"testing"

	"github.com/vmdisk/vmdisk/domain"
	"github.com/vmdisk/vmdisk/migrate"
)

func TestMigrationPostcopy(t *testing.T) {
	heals(t)
	travels(t, []journey{
		{"cut", postcopyCut},
		{"virsh's cut", postcopyCutUnknown},
		{"destination QEMU frozen", destQEMUFrozenInPostcopy},
		{"client killed", clientKilledInPostcopy},
		{"source libvirtd killed", sourceLibvirtdKilledInPostcopy},
		{"destination libvirtd killed", destLibvirtdKilledInPostcopy},
		{"destination QEMU killed", destQEMUKilledInPostcopy},
	})
}

// splits begins to move the machine and returns when it runs on the destination while
// most of its memory is on the source, from where it comes with mib MiB a second.
func (m *traveller) splits(t *testing.T, mib string, h *Host, copying <-chan struct{}) (ended <-chan error) {
	t.Helper()
	m.noSecretThere(t)
	m.policy = migrate.Policy{OnStall: migrate.StallPostcopy}
	t.Cleanup(func() { m.policy = migrate.Policy{} })
	m.speed(t, "4")
	virsh(t, m.at, "migrate-setspeed", m.UUID, mib, "--postcopy")
	ended = m.leavesWith(t, h, copying)
	m.switches(t)
	return ended
}

// switches has a migration that is under way go on in post-copy.
func (m *traveller) switches(t *testing.T) {
	t.Helper()
	must(t, domain.StartPostcopy(t.Context(), connected(t, m.at), m.UUID))
	becomes(t, m.there(), m.UUID, "running in post-copy", func(c domain.Condition) bool { return c.Postcopy && !c.Paused })
}

// departs is a Host for a machine that is about to leave, and says when its memory is
// being copied.
func (m *traveller) departs(t *testing.T) (h *Host, copying <-chan struct{}) {
	t.Helper()
	begun := make(chan struct{}, 1)
	h = impatient(t, m.at, 0, func(e Event) {
		if e.Migration != nil && e.Migration.Phase == migrate.Copy {
			select {
			case begun <- struct{}{}:
			default:
			}
		}
	})
	h.leastPatience = hostSilence
	return h, begun
}

func (m *traveller) splitsFast(t *testing.T) <-chan error {
	t.Helper()
	h, copying := m.departs(t)
	ended := m.splits(t, "8", h, copying)
	// What it works on is there then. A QEMU that itself waits for a page of its guest
	// answers nobody, and cannot even be told where the rest is to come from.
	m.writes(t, m.there(), "vda")
	return ended
}

// cut breaks the connections over which the machine's memory moves.
func (m *traveller) cut(t *testing.T) {
	t.Helper()
	// The source's end: the destination still reads what is on its way.
	out, err := exec.Command("ss", "-tK", "dst", testLab.Hosts[m.there()].Addr, "and", "dport", "=", m.port(t)).CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	becomes(t, m.at, m.UUID, "interrupted", func(c domain.Condition) bool { return c.Broken })
}

// port is where the destination takes the machine's memory.
func (m *traveller) port(t *testing.T) string {
	t.Helper()
	qemu, err := testLab.Hosts[m.at].QEMU(m.Name)
	must(t, err)
	out, err := exec.Command("ss", "-tnpH", "dst", testLab.Hosts[m.there()].Addr).Output()
	must(t, err)
	for line := range strings.Lines(string(out)) {
		if strings.Contains(line, "pid="+strconv.Itoa(qemu.PID())+",") {
			addr := strings.Fields(line)[4]
			return addr[strings.LastIndex(addr, ":")+1:]
		}
	}
	t.Fatalf("no connection of %d: %s", qemu.PID(), out)
	return ""
}

// The guest goes on as far as it has what it needs. The journal says where the rest is to
// go, and any command fetches it.
func postcopyCut(t *testing.T, m *traveller) {
	ended := m.splitsFast(t)
	m.cut(t)
	err := result(t, ended)
	fails(t, err, migrate.ErrInterrupted)
	var e *Error
	if !errors.As(err, &e) || !strings.HasSuffix(e.Next, "vmdisk migrate --recover "+m.Name) {
		t.Errorf("what to do next: %+v", e)
	}
	moved, err := open(t, m.at).RecoverMigration(t.Context(), m.Name, "")
	if err != nil || moved.To != testLab.Hosts[m.there()].Name {
		t.Errorf("recovered: %+v, %v", moved, err)
	}
	m.settled(t, m.there())
}

// Somebody else's migration is not in the journal.
func postcopyCutUnknown(t *testing.T, m *traveller) {
	m.speed(t, "4")
	virsh(t, m.at, "migrate-setspeed", m.UUID, "8", "--postcopy")
	h := open(t, m.at)
	_, err := h.RecoverMigration(t.Context(), m.Name, "")
	fails(t, err, domain.ErrInvalid)
	dest := testLab.Hosts[m.there()].URI
	cmd := exec.Command("virsh", "-q", "-c", testLab.Hosts[m.at].URI, "migrate", m.UUID, dest,
		"--live", "--p2p", "--persistent", "--undefinesource", "--postcopy")
	must(t, cmd.Start())
	becomes(t, m.at, m.UUID, "on its way", func(c domain.Condition) bool { return c.Job })
	for ctx := waiting(t); ; {
		s, err := domain.JobStats(ctx, connected(t, m.at), m.UUID)
		must(t, err)
		if s != nil && s.MemIteration > 0 {
			break
		}
	}
	m.switches(t)
	m.writes(t, m.there(), "vda")
	m.cut(t)
	if err := cmd.Wait(); err == nil {
		t.Error("it was not interrupted")
	}
	_, err = h.RecoverMigration(t.Context(), m.Name, "")
	fails(t, err, domain.ErrInvalid)
	_, err = h.RecoverMigration(t.Context(), m.Name, dest)
	must(t, err)
	m.settled(t, m.there())
}

// Nothing comes to its end by itself: it is interrupted, and goes on when the
// destination is well again.
func destQEMUFrozenInPostcopy(t *testing.T, m *traveller) {
	ended := m.splitsFast(t)
	qemu, err := testLab.Hosts[m.there()].QEMU(m.Name)
	must(t, err)
	must(t, qemu.Freeze(t.Context()))
	becomes(t, m.at, m.UUID, "interrupted", func(c domain.Condition) bool { return c.Broken })
	must(t, qemu.Thaw(t.Context()))
	fails(t, result(t, ended), migrate.ErrInterrupted)
	m.settled(t, m.there())
}

// The hosts need no client to go on.
func clientKilledInPostcopy(t *testing.T, m *traveller) {
	m.speed(t, "4")
	virsh(t, m.at, "migrate-setspeed", m.UUID, "4", "--postcopy")
	client, _ := sleeper{Do: "migrate", VM: m.UUID, At: m.at, Dest: testLab.Hosts[m.there()].URI, OnStall: migrate.StallPostcopy}.runs(t, "copying")
	m.switches(t)
	must(t, client.Process.Kill())
	_ = client.Wait()
	becomes(t, m.at, m.UUID, "in post-copy", func(c domain.Condition) bool { return c.Postcopy && !c.Broken })
	m.settled(t, m.there())
}

func sourceLibvirtdKilledInPostcopy(t *testing.T, m *traveller) {
	ended := m.splitsFast(t)
	must(t, testLab.Hosts[m.at].Libvirtd().Kill(t.Context()))
	fails(t, result(t, ended), migrate.ErrUnknown)
	must(t, testLab.Hosts[m.at].Libvirtd().Start(t.Context()))
	m.settled(t, m.there())
}

func destLibvirtdKilledInPostcopy(t *testing.T, m *traveller) {
	ended := m.splitsFast(t)
	must(t, testLab.Hosts[m.there()].Libvirtd().Kill(t.Context()))
	err := result(t, ended)
	if !errors.Is(err, migrate.ErrUnknown) && !errors.Is(err, migrate.ErrInterrupted) {
		t.Errorf("error is %v", err)
	}
	must(t, testLab.Hosts[m.there()].Libvirtd().Start(t.Context()))
	m.settled(t, m.there())
}

// What the guest has written on the destination was nowhere else.
func destQEMUKilledInPostcopy(t *testing.T, m *traveller) {
	m.lost(t, m.splitsFast(t), m.there())
}
