// What is read without a lab: the oracle's disk, its console, QEMU's command
// line and paths.

package lab

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

// oracleDisk returns the region of a disk with the numbers from first to last
// written on it, one after the other.
func oracleDisk(first, last uint64) []byte {
	disk := make([]byte, oracleRegion)
	copy(disk, oracleBlock("header"))
	for n := first; n <= last; n++ {
		copy(disk[OracleBlock*(1+n%OracleSlots):], oracleBlock(fmt.Sprint(n)))
	}
	return disk
}

func oracleBlock(number string) []byte {
	line := OracleMagic + ":1:vdb:boot:" + number + ":"
	return fmt.Appendf(nil, "%-*s\n%-*s\n", OracleBlock-oracleTail-1, line, oracleTail-1, line)
}

func TestOracleBlocks(t *testing.T) {
	wipe := func(n uint64) func([]byte) {
		return func(disk []byte) { clear(disk[OracleBlock*(1+n%OracleSlots):][:OracleBlock]) }
	}
	tear := func(n uint64) func([]byte) {
		return func(disk []byte) { disk[OracleBlock*(1+n%OracleSlots)+OracleBlock-30] = 'x' }
	}
	for _, c := range []struct {
		name        string
		first, last uint64
		harm        func([]byte)
		acked       uint64
		lost        string
	}{
		{name: "fresh", first: 1, last: 0, acked: 0},
		{name: "all there", first: 1, last: 100, acked: 100},
		{name: "written and not acknowledged", first: 1, last: 101, acked: 100},
		{name: "the last is gone", first: 1, last: 99, acked: 100, lost: "100"},
		{name: "one in the middle is gone", first: 1, last: 100, harm: wipe(50), acked: 100, lost: "50"},
		{name: "round the ring", first: 1, last: 3*OracleSlots + 7, acked: 3*OracleSlots + 7},
		{name: "the oldest is being written over", first: 1, last: 5000, harm: tear(5001), acked: 5000},
		{name: "one on the ring is gone", first: 1, last: 5000, harm: wipe(4000), acked: 5000, lost: "4000"},
		{name: "torn", first: 1, last: 100, harm: tear(60), acked: 100, lost: "60"},
		{name: "a torn one that nobody was promised", first: 1, last: 100, harm: tear(100), acked: 99},
	} {
		t.Run(c.name, func(t *testing.T) {
			disk := oracleDisk(c.first, c.last)
			if c.harm != nil {
				c.harm(disk)
			}
			b, err := OracleBlocks(bytes.NewReader(disk), int64(len(disk)))
			must(t, err)
			err = b.Check(c.acked)
			if c.lost == "" && err != nil || c.lost != "" && (err == nil || !strings.Contains(err.Error(), c.lost)) {
				t.Errorf("lost %q expected: %v", c.lost, err)
			}
		})
	}
}

func TestOracleBlocksOfRootDisk(t *testing.T) {
	disk := append(make([]byte, OracleRootBase), oracleDisk(1, 9)...)
	b, err := OracleBlocks(bytes.NewReader(disk), int64(len(disk)))
	if err != nil || b.Highest != 9 || len(b.Numbers) != 9 {
		t.Errorf("%+v, %v", b, err)
	}
	clear(disk)
	if _, err := OracleBlocks(bytes.NewReader(disk), int64(len(disk))); !errors.Is(err, ErrNoOracle) {
		t.Errorf("blank disk: %v", err)
	}
}

func TestConsole(t *testing.T) {
	c := &Console{Path: filepath.Join(t.TempDir(), "log")}
	if all, err := c.All(); all != "" || err != nil {
		t.Errorf("before it speaks: %q, %v", all, err)
	}
	must(t, os.WriteFile(c.Path, []byte("oracle: ready boot b next 1\r\nack vda 9\r\nack vda 10\r\nack vdb 77\r\nfail vda 11\r\nack vda 12"), 0o600))
	acked, err := c.Acked("vda")
	failed, _ := c.Failed("vda")
	if acked != 10 || failed != 11 || err != nil {
		t.Errorf("acked %d, failed %d, %v: the last line is not whole", acked, failed, err)
	}
	m, err := c.Wait(t.Context(), regexp.MustCompile(`(?m)^ack vda (\d+)$`))
	if err != nil || m[1] != "9" {
		t.Errorf("first: %q, %v", m, err)
	}
	m, err = c.Wait(t.Context(), regexp.MustCompile(`(?m)^ack vda (\d+)$`))
	if err != nil || m[1] != "10" {
		t.Errorf("second: %q, %v", m, err)
	}
}

func TestCrashedGuest(t *testing.T) {
	for said, want := range map[string]error{
		"ack vda 7\n[    9.1] watchdog: BUG: soft lockup - CPU#0 stuck for 23s!\n":                      nil,
		"ack vda 7\n[    9.1] list_del corruption. prev->next should be a\n":                            ErrCrashed,
		"ack vda 7\n[    9.1] ------------[ cut here ]---\n[ 9.1] kernel BUG at lib/list_debug.c:29!\n": ErrCrashed,
		"ack vda 8\n[    9.1] kernel BUG at lib/list_debug.c:29!\n":                                     nil,
	} {
		c := &Console{Path: filepath.Join(t.TempDir(), "log")}
		must(t, os.WriteFile(c.Path, []byte(said), 0o600))
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
		_, err := c.WaitAcked(ctx, "vda", 7)
		cancel()
		if errors.Is(err, ErrCrashed) != (want != nil) {
			t.Errorf("%q: %v", said, err)
		}
	}
}

func TestParseQEMU(t *testing.T) {
	m := parseQEMU([]byte("qemu\x00-name\x00guest=a,,b,debug-threads=on\x00-uuid\x00u-1\x00"))
	if m.name != "a,b" || m.uuid != "u-1" {
		t.Errorf("%+v", m)
	}
}

func TestRealDir(t *testing.T) {
	for dir, want := range map[string]string{
		"":                                "no directory",
		"/run/lab":                        "hosts have their own",
		"/tmp/" + strings.Repeat("x", 99): "sockets",
		"/tmp/a b":                        "character",
	} {
		if _, err := realDir(dir); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v", dir, err)
		}
	}
}
