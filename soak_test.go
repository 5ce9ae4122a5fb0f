// Soak: workflows at random, several at once, some killed at any moment; then
// whoever comes next repairs, and there is what there was before or after each.

package vmdisk

import (
	"bytes"
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"os/exec"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

var (
	soakTime = flag.Duration("soak", 20*time.Second, "how long TestSoak goes on")
	soakSeed = flag.Uint64("soak.seed", 0, "the seed of TestSoak's choices; 0 is another each time")
)

// soakKills is how long a workflow lives that is killed: up to this, so that some
// are over before. soakAtOnce is how many there are at once.
const (
	soakKills  = 3 * time.Second
	soakAtOnce = 3
)

// soaked is a pair of workflows, what both work on, and which of them was last.
type soaked struct {
	reversible
	f fixture
	// adds is what there is in state with that there is not without, and takes the
	// reverse.
	adds, takes state
	with        bool
}

// soak is what goes on.
type soak struct {
	t     *testing.T
	hosts []*Host
	rnd   *rand.Rand
	base  state // with nothing done
	all   []*soaked

	started, killed, repaired, compared int
}

func TestSoak(t *testing.T) {
	seed := *soakSeed
	if seed == 0 {
		seed = rand.Uint64()
	}
	mayReadBackups(t) // before anybody connects
	s := &soak{t: t, rnd: rand.New(rand.NewPCG(seed, 0)), hosts: []*Host{open(t, 0), open(t, 1)}}
	t.Logf("to choose the same again:  -soak.seed %d", seed)
	s.prepare()
	end, said := time.Now().Add(*soakTime), time.Now()
	for time.Now().Before(end) && !t.Failed() {
		s.round()
		if time.Since(said) > time.Minute {
			said = time.Now()
			t.Log(s)
		}
	}
	t.Log(s)
	for _, one := range s.all {
		if one.with {
			must(t, one.undo.run(t.Context(), s.hosts[one.undo.host], one.f))
		}
	}
}

func (s *soak) String() string {
	return fmt.Sprintf("%d workflows, %d of them killed at a random moment, %d left work for a repair; "+
		"%d times compared: nothing missing, nothing left over", s.started, s.killed, s.repaired, s.compared)
}

// prepare makes what the workflows work on, and learns what each adds.
func (s *soak) prepare() {
	for _, p := range pairs {
		if p.undo.name == "" {
			continue
		}
		one := &soaked{reversible: p, f: p.setup(s.t, s.hosts[0])}
		s.all = append(s.all, one)
		s.t.Cleanup(func() { _ = p.undo.run(s.t.Context(), s.hosts[0], one.f) })
		must(s.t, p.do.run(s.t.Context(), s.hosts[0], one.f)) // which makes what stays for good
		must(s.t, p.undo.run(s.t.Context(), s.hosts[0], one.f))
	}
	s.base = stateNow(s.t).named()
	for _, one := range s.all {
		must(s.t, one.do.run(s.t.Context(), s.hosts[0], one.f))
		with := stateNow(s.t).named()
		must(s.t, one.undo.run(s.t.Context(), s.hosts[0], one.f))
		one.adds, one.takes = with.without(s.base), s.base.without(with)
	}
}

// without are the lines that are not in other.
func (s state) without(other state) state {
	has := map[string]int{}
	for _, line := range other {
		has[line]++
	}
	var all state
	for _, line := range s {
		if has[line]--; has[line] < 0 {
			all = append(all, line)
		}
	}
	return all
}

// round does some workflows at once, has what is left repaired, and compares.
func (s *soak) round() {
	chosen := map[*soaked]workflow{}
	for range soakAtOnce {
		one := s.all[s.rnd.IntN(len(s.all))]
		if chosen[one] = one.do; one.with {
			chosen[one] = one.undo
		}
	}
	ends := map[*soaked]func() error{}
	for one, w := range chosen {
		ends[one] = s.start(w, one.f)
	}
	for one, end := range ends {
		if err := end(); err != nil {
			s.t.Errorf("%s: %v", chosen[one].name, err)
		}
	}
	for i, h := range s.hosts {
		r, err := h.Repair(s.t.Context(), RepairOptions{})
		if err != nil && i > 0 {
			s.t.Errorf("repair: %v", err)
		}
		s.repaired += len(r.Operations)
	}
	s.compare(slices.Collect(maps.Keys(chosen)))
}

// start starts a workflow in a process of its own; every other is killed.
func (s *soak) start(w workflow, f fixture) (end func() error) {
	s.started++
	cmd, err := w.process(f, point{})
	must(s.t, err)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	must(s.t, cmd.Start())
	if s.rnd.IntN(2) == 0 {
		time.AfterFunc(time.Duration(s.rnd.Int64N(int64(soakKills))), func() { _ = cmd.Process.Kill() })
	}
	return func() error { return s.ended(cmd, &out) }
}

func (s *soak) ended(cmd *exec.Cmd, out *bytes.Buffer) error {
	err := cmd.Wait()
	if killed(err) {
		s.killed++
		return nil
	}
	if err != nil {
		return fmt.Errorf("%w: %s", err, out)
	}
	return nil
}

// compare finds out which of those that were at work have happened, and that there
// is what they add and nothing else.
func (s *soak) compare(chosen []*soaked) {
	s.compared++
	now := stateNow(s.t).named()
	for _, one := range chosen {
		one.with = len(one.adds.without(now)) == 0 && len(one.takes.without(now)) == len(one.takes)
	}
	want := s.base
	for _, one := range s.all {
		if one.with {
			want = append(want.without(one.takes), one.adds...)
		}
	}
	slices.Sort(want)
	if diff := cmp.Diff(want, now); diff != "" {
		s.t.Errorf("after %d workflows (-want +got):\n%s", s.started, diff)
	}
}
