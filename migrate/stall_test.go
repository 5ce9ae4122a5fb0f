package migrate

import (
	"errors"
	"testing"
	"time"

	"github.com/vmdisk/vmdisk/domain"
	"libvirt.org/go/libvirt"
)

// Passes that begin with less and less come nearer; those that do not, do not, however
// little remains in between. Who is slowed down further is given more time.
func TestNearing(t *testing.T) {
	for _, tt := range []struct {
		name    string
		passes  []uint64 // what each begins with, in MiB
		slower  int      // from one to the next
		nearers int
	}{
		{"converges", []uint64{128, 64, 32, 16, 8}, 0, 5},
		{"does not", []uint64{128, 64, 64, 63, 66, 62}, 0, 2},
		{"a little each time", []uint64{100, 95, 91, 89, 85, 80}, 0, 3},
		{"is slowed down", []uint64{128, 64, 64, 64}, 10, 4},
	} {
		t.Run(tt.name, func(t *testing.T) {
			n, nearers := newNearing(), 0
			for i, most := range tt.passes {
				n.since = time.Time{}
				for _, remains := range []uint64{most, most / 2, 0} {
					n.take(&libvirt.DomainJobInfo{MemIteration: uint64(i + 1), DataRemaining: remains * mib, AutoConvergeThrottle: i * tt.slower})
				}
				if !n.since.IsZero() {
					nearers++
				}
			}
			if nearers != tt.nearers {
				t.Errorf("%d passes came nearer, not %d", nearers, tt.nearers)
			}
		})
	}
}

func TestDowntimeSteps(t *testing.T) {
	d := Policy{Downtime: 200 * time.Millisecond}.downtime()
	var all []time.Duration
	for ; !d.last(); d.raise(100*mib, mib) { // more than any downtime is enough for
		all = append(all, d.now())
	}
	if len(all) != downtimeSteps || all[0] != 20*time.Millisecond || d.now() != 200*time.Millisecond {
		t.Errorf("steps %v, and at the end %v", all, d.now())
	}
	d = Policy{}.downtime()
	if d.raise(30*mib, 100*mib); d.now() < 300*time.Millisecond || d.last() {
		t.Errorf("30 MiB at 100 MiB/s are given %v", d.now())
	}
	if d := (Policy{Downtime: time.Millisecond}).downtime(); d.now() != time.Millisecond {
		t.Errorf("the least is %v", d.now())
	}
}

func TestPolicyFlags(t *testing.T) {
	if f := (Policy{}).flags(); f != libvirt.MIGRATE_AUTO_CONVERGE {
		t.Errorf("the normal policy has flags %x", f)
	}
	if f := (Policy{Postcopy: true, TLS: true}).flags(); f != libvirt.MIGRATE_POSTCOPY|libvirt.MIGRATE_TLS {
		t.Errorf("post-copy has flags %x", f)
	}
	p := &libvirt.DomainMigrateParameters{}
	Policy{Bandwidth: mib + 1}.set(p)
	if !p.BandwidthSet || p.Bandwidth != 2 {
		t.Errorf("a bandwidth of more than a MiB/s is %+v", p)
	}
	if err := (Policy{}).Check(); err != nil {
		t.Error(err)
	}
	if err := (Policy{Parallel: 2, Postcopy: true}).Check(); !errors.Is(err, domain.ErrInvalid) {
		t.Errorf("parallel post-copy: %v", err)
	}
}
