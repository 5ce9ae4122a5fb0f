// A guest that writes to its memory, seen on the wire when it migrates: TestLab
// runs these one after the other, on one guest.

package lab

import (
	"bytes"
	"errors"
	"regexp"
	"strconv"
	"testing"
)

const (
	traveller   = "traveller"
	dirtyRegion = 32 << 20
)

func guestTravels(t *testing.T, l *Lab) {
	testMachine(t, l.Hosts[0], traveller)
	t.Run("dirties memory", func(t *testing.T) { guestDirties(t, l.Hosts[0]) })
	t.Run("in the clear", func(t *testing.T) {
		seen := migrates(t, l.Hosts[0], l.Hosts[1].URI)
		if seen.Found < dirtyRegion/4096 || seen.Bytes < dirtyRegion {
			t.Errorf("%d marked pages in %d bytes on the wire", seen.Found, seen.Bytes)
		}
	})
	t.Run("encrypted", func(t *testing.T) {
		seen := migrates(t, l.Hosts[1], l.Hosts[0].TLSURI, "--tls")
		if seen.Found > 0 || seen.Bytes < dirtyRegion {
			t.Errorf("%d marked pages in %d bytes on the wire", seen.Found, seen.Bytes)
		}
	})
	t.Run("and its host loses power", func(t *testing.T) { hostLosesPower(t, l.Hosts[0]) })
}

func guestDirties(t *testing.T, h *Host) {
	ctx := deadline(t)
	if err := h.Dirty(ctx, "nobody", 1, 1<<20); err == nil {
		t.Error("a machine that is not there writes")
	}
	if err := h.Dirty(ctx, traveller, 1<<20, 1<<30); err == nil {
		t.Error("a guest writes to more memory than it has")
	}
	must(t, h.Dirty(ctx, traveller, 1<<40, dirtyRegion))
	fast := dirtyRate(t, h)
	must(t, h.Dirty(ctx, traveller, 0, 0))
	still := dirtyRate(t, h)
	if fast < 8 || still > fast/2 {
		t.Errorf("it dirties %d MiB/s, and %d MiB/s when told not to", fast, still)
	}
	must(t, h.Dirty(ctx, traveller, 2<<20, dirtyRegion))
}

// dirtyRate has libvirt calculate how many MiB/s a guest dirties.
func dirtyRate(t *testing.T, h *Host) (rate int) {
	t.Helper()
	ctx := deadline(t)
	_, err := h.virsh(ctx, "domdirtyrate-calc", traveller, "--seconds", "1")
	must(t, err)
	calculated := regexp.MustCompile(`calc_status=2\n(?s:.*)megabytes_per_second=(\d+)`)
	must(t, until(ctx, func() error {
		out, err := h.virsh(ctx, "domstats", "--dirtyrate", traveller)
		if err != nil {
			return err
		}
		m := calculated.FindSubmatch(out)
		if m == nil {
			return errors.New("it is not yet calculated")
		}
		rate, err = strconv.Atoi(string(m[1]))
		return err
	}))
	return rate
}

// migrates migrates the guest and returns what was on the wire.
func migrates(t *testing.T, from *Host, to string, flags ...string) Captured {
	t.Helper()
	ctx := deadline(t)
	c, err := from.lab.Capture([]byte(DirtyMarker))
	must(t, err)
	// The disk is a file that both hosts have.
	_, err = from.virsh(ctx, append([]string{"migrate", "--live", "--p2p", "--unsafe", traveller, to}, flags...)...)
	must(t, err)
	seen, err := c.Stop()
	must(t, err)
	t.Logf("%d marked pages in %d MiB", seen.Found, seen.Bytes>>20)
	return seen
}

// A pattern is found wherever packets begin and end.
func TestCapturePieces(t *testing.T) {
	text := []byte("..pattern...patternpattern.pat.")
	for size := 1; size <= len(text); size++ {
		c := &Capture{pattern: []byte("pattern"), streams: map[stream]*position{}}
		other := stream{fromPort: 1}
		for at := 0; at < len(text); at += size {
			c.data(stream{}, uint32(at-10), text[at:min(at+size, len(text))]) // the number wraps around
			c.data(other, uint32(at*2), bytes.Repeat([]byte("pat"), 3))       // and what is between is lost
		}
		if c.seen.Found != 3 {
			t.Errorf("in pieces of %d it is found %d times", size, c.seen.Found)
		}
	}
}
