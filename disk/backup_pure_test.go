package disk

import (
	"testing"
	"time"
)

func TestBackupNames(t *testing.T) {
	taken := time.Unix(1795347806, 938604000).UTC()
	if name := BackupSnapshot("b1", taken); name != "backup.b1.snap.1795347806.938604" {
		t.Error(name)
	}
	for _, tt := range []struct {
		name, id string
		taken    time.Time
		ok       bool
	}{
		{"backup.b1.snap.1795347806.938604", "b1", taken, true},
		{"backup.11111111-1111-4111-8111-111111111111.snap.1795347806.93", "11111111-1111-4111-8111-111111111111", time.Unix(1795347806, 930000000).UTC(), true},
		{"backup.b1.snap.1795347806", "b1", time.Unix(1795347806, 0).UTC(), true},
		{"backup.b1.snap.tuesday", "b1", time.Time{}, true},
		{"backup.B1.snap.1", "", time.Time{}, false},
		{"backup.b1.meta", "", time.Time{}, false},
		{"snapshot-b1", "", time.Time{}, false},
	} {
		id, at, ok := parseBackupSnapshot(tt.name)
		if id != tt.id || !at.Equal(tt.taken) || ok != tt.ok {
			t.Errorf("%s: %q %v %v", tt.name, id, at, ok)
		}
	}
	volume, id, ok := parseBase("volume-a.backup.b.backup.c1")
	if volume != "volume-a.backup.b" || id != "c1" || !ok {
		t.Error(volume, id, ok)
	}
	if _, _, ok := parseBase("image.backup.c1"); ok {
		t.Error("not a volume's")
	}
	for id, ok := range map[string]bool{"b1": true, "11111111-1111-4111-8111-111111111111": true,
		"": false, "B1": false, "-b": false, "b.1": false, "base": false, "1234567890123456789012345678901234567": false} {
		if err := CheckBackupID(id); (err == nil) != ok {
			t.Errorf("%q: %v", id, err)
		}
	}
}

func TestSumPage(t *testing.T) {
	first, later := new(sumPage), new(sumPage)
	first.set(0, 1)
	first.set(65, 2)
	first.set(pageGrains-1, 3)
	later.set(65, 0)
	stored := new(sumPage)
	if data := first.encode(); !stored.decode(data) || *stored != *first {
		t.Error("a page is not what was stored")
	}
	stored.overlay(later)
	for grain, want := range map[int64]uint32{0: 1, 65: 0, pageGrains - 1: 3} {
		if crc, ok := stored.get(grain); !ok || crc != want {
			t.Errorf("grain %d: %d %v", grain, crc, ok)
		}
	}
	data := first.encode()
	data[3] ^= 1
	if new(sumPage).decode(data) {
		t.Error("a flipped bit goes unnoticed")
	}
	if new(sumPage).encode() != nil || new(sumPage).decode(nil) {
		t.Error("no entries are no page")
	}
	if zeroCRC(0, zeros[:]) != 0 || zeroCRC(0, []byte{1}) == 0 {
		t.Error("zeros have the checksum 0, and nothing else has")
	}
}

func TestClip(t *testing.T) {
	got := clip([]span{{0, 10}, {20, 10}, {40, 5}}, 5, 20)
	if len(got) != 2 || got[0] != (span{0, 5}) || got[1] != (span{15, 5}) {
		t.Error(got)
	}
}

func TestSumPageEnds(t *testing.T) {
	p := new(sumPage)
	for g := range int64(10) {
		p.set(g, 7)
	}
	p.cut(0, 5*sumGrain+1) // of grain 5 a byte is left
	if _, ok := p.get(5); !ok {
		t.Error("the last grain is gone")
	}
	if _, ok := p.get(6); ok {
		t.Error("grain 6 is behind the end")
	}
	p.blank(0, 5*sumGrain, 8*sumGrain)
	for g, want := range map[int64]uint32{4: 7, 5: 0, 7: 0} {
		if crc, ok := p.get(g); !ok || crc != want {
			t.Errorf("grain %d: %d %v", g, crc, ok)
		}
	}
	if _, ok := p.get(8); ok {
		t.Error("grain 8 is behind what was blanked")
	}
	p.cut(1, pageSpan) // the page begins there
	if _, ok := p.get(0); ok {
		t.Error("all of a page behind the end is cut")
	}
}
