package main

import (
	"testing"
	"time"
	"unicode/utf8"

	"github.com/vmdisk/vmdisk"
	"github.com/vmdisk/vmdisk/migrate"
)

// A migration's figures are a line, with a bar of some columns before them, however
// large they are; and what the guest writes anew takes no percent away.
func TestMigrationLine(t *testing.T) {
	event := func(top int64, p migrate.Progress) vmdisk.Event {
		return vmdisk.Event{Kind: vmdisk.Progress, Step: "copy", Bytes: top, Total: p.Total, Migration: &p}
	}
	for _, tt := range []struct {
		e    vmdisk.Event
		want string
	}{
		{event(208<<20, migrate.Progress{Total: 256 << 20, Remaining: 48 << 20, Rate: 112 << 20, Dirty: 3 << 20, Left: 400 * time.Millisecond}),
			"  81 %  208 of 256 MiB  112 MiB/s  dirty 3 MiB/s  400 ms left"},
		{event(250<<20, migrate.Progress{Total: 256 << 20, Remaining: 48 << 20, Rate: 1 << 20}), "  97 %  48 MiB to go  1 MiB/s"},
		{event(256<<20, migrate.Progress{Total: 256 << 20}), "  99 %  256 of 256 MiB"},
		{event(1<<30, migrate.Progress{Total: 3 << 29, Remaining: 1 << 29}), "  66 %  1 of 1.5 GiB"},
	} {
		if got := migrationLine(tt.e); got != tt.want {
			t.Errorf("got %q, want %q", got, tt.want)
		}
	}
	const width, heading = 80, len("handover ")
	long := migrationLine(event(1022<<20, migrate.Progress{Total: 1023 << 20, Remaining: 1 << 20, Rate: 1020 << 20, Dirty: 1020 << 20, Left: 59*time.Minute + 59*time.Second}))
	if n := heading + utf8.RuneCountInString(long); n > width-3 {
		t.Errorf("%d columns: %s", n, long)
	}
}
