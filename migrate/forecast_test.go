package migrate

import (
	"math"
	"strings"
	"testing"
	"time"

	"github.com/vmdisk/vmdisk/domain"
)

const mib = 1 << 20

func TestEstimate(t *testing.T) {
	seen := Link{Rate: 100 * mib, Overhead: time.Second, Basis: Seen}
	tests := []struct {
		name  string
		load  domain.Load // in MiB
		link  Link
		p     Policy
		says  string
		calls Stall
		basis Basis
	}{
		{"idle", domain.Load{Memory: 1000}, seen, Policy{}, "11.1 s, downtime about 100 ms, converges at 100 MiB/s", "", Seen},
		{"nothing known", domain.Load{Memory: 1000}, Link{}, Policy{}, "9.4 s, downtime about 100 ms, assuming 119 MiB/s", "", Assumed},
		{"limit", domain.Load{Memory: 1000}, seen, Policy{Bandwidth: 50 * mib}, "21.1 s, downtime about 100 ms, converges at 50 MiB/s", "", Given},
		{"limit above what was seen", domain.Load{Memory: 1000}, seen, Policy{Bandwidth: 200 * mib}, "11.1 s, downtime about 100 ms, converges at 100 MiB/s", "", Seen},
		{"limit, nothing known", domain.Load{Memory: 1000}, Link{}, Policy{Bandwidth: 50 * mib}, "21.1 s, downtime about 100 ms, converges at 50 MiB/s", "", Given},
		{"writes half", domain.Load{Memory: 1000, Dirty: 50}, seen, Policy{}, "20.9 s, downtime about 100 ms, converges at 100 MiB/s", "", Seen},
		{"writes more", domain.Load{Memory: 1000, Dirty: 120}, seen, Policy{}, "does not converge: dirties 120 MiB/s at 100 MiB/s", StallAutoConverge, Seen},
		{"writes far more", domain.Load{Memory: 1000, Dirty: 800}, seen, Policy{}, "does not converge: dirties 800 MiB/s at 100 MiB/s", StallPostcopy, Seen},
		{"writes little less", domain.Load{Memory: 1000, Dirty: 99}, seen, Policy{}, "does not converge: dirties 99 MiB/s at 100 MiB/s", StallAutoConverge, Seen},
		{"fits into the downtime", domain.Load{Memory: 40, Dirty: 800}, seen, Policy{}, "1.8 s, downtime about 450 ms, converges at 100 MiB/s", "", Seen},
		{"post-copy", domain.Load{Memory: 1000, Dirty: 50}, seen, Policy{Postcopy: true}, "16.0 s, downtime about 50 ms, converges at 100 MiB/s", "", Seen},
		{"slow", domain.Load{Memory: 1000, Dirty: 3}, seen, Policy{Bandwidth: 2 * mib}, "does not converge: dirties 3.0 MiB/s at 2.0 MiB/s", StallAutoConverge, Given},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			f := Estimate(domain.Load{Memory: tt.load.Memory * mib, Dirty: tt.load.Dirty * mib}, tt.link, tt.p)
			if f.String() != tt.says || f.CallsFor != tt.calls || f.Basis != tt.basis || f.Converges == (f.Passes == 0) {
				t.Errorf("forecast is %+v\nand says %s\nwant     %s", f, f, tt.says)
			}
			if len(f.String()) > 53 {
				t.Errorf("%q is too long for its column", f)
			}
		})
	}
}

// Passes added up come to the sum of their series, whatever the rates are.
func TestEstimateIsTheSeries(t *testing.T) {
	const memory, rate, downtime = 4096, 100, 0.05
	for _, dirty := range []int64{0, 10, 50, 80, 90} {
		f := Estimate(domain.Load{Memory: memory * mib, Dirty: dirty * mib}, Link{Rate: rate * mib}, Policy{})
		want := (memory-rate*downtime)/float64(rate-dirty) + downtime
		if got := f.Elapsed.Seconds(); !f.Converges || math.Abs(got-want) > 0.6 {
			t.Errorf("%d MiB/s: %.2f s in %d passes, the series comes to %.2f s", dirty, got, f.Passes, want)
		}
		if sent := float64(f.Transferred) / mib; math.Abs(sent-want*rate) > 60 {
			t.Errorf("%d MiB/s: %.0f MiB sent, want %.0f", dirty, sent, want*rate)
		}
	}
}

// A guest that is slowed down from the start comes to an end, later the more it writes.
func TestEstimateAutoConverge(t *testing.T) {
	last := time.Duration(0)
	for _, dirty := range []int64{0, 90, 120, 400, 4000} {
		f := Estimate(domain.Load{Memory: 4096 * mib, Dirty: dirty * mib}, Link{Rate: 100 * mib}, Policy{AutoConverge: true})
		if !f.Converges || f.Elapsed <= last {
			t.Errorf("%d MiB/s: %+v after %v", dirty, f, last)
		}
		last = f.Elapsed
	}
	f := Estimate(domain.Load{Memory: 4096 * mib, Dirty: 40000 * mib}, Link{Rate: 100 * mib}, Policy{AutoConverge: true})
	if f.Converges || !strings.Contains(f.String(), "does not converge") {
		t.Errorf("%+v", f)
	}
}
