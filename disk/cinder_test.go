package disk

import (
	"errors"
	"testing"
)

func TestSnapshotNames(t *testing.T) {
	for name, want := range map[string]string{
		"snapshot-x": KindSnapshot, "volume-y.clone_snap": KindClone,
		"backup.0a-1.snap.1700000000.5": KindBackup, "backup.x": KindOther, "snap": KindOther,
	} {
		if got := SnapshotKind(name); got != want {
			t.Errorf("%s is a %s, want %s", name, got, want)
		}
	}
	if got := SnapshotName("x"); got != "snapshot-x" || SnapshotName(got) != got || SnapshotID(got) != "x" {
		t.Errorf("name of x is %s", got)
	}
	if got := CloneSnapshot("volume-a.deleted"); got != "volume-a.clone_snap" {
		t.Errorf("a deleted clone hangs on %s", got)
	}
}

func TestParseSnapshot(t *testing.T) {
	for spec, want := range map[string]Name{
		"a@b":        {Pool: "volumes", Image: "volume-a", Snap: "b"},
		"p/a@b":      {Pool: "p", Image: "a", Snap: "b"},
		"snapshot-b": {Pool: "volumes", Snap: "snapshot-b"},
	} {
		if got, err := ParseSnapshot(spec); err != nil || got != want {
			t.Errorf("%s is %+v, %v", spec, got, err)
		}
	}
	for _, bad := range []string{"", "a@", "@b", "a@b@c", "a:b", "-a", "a@../b", "x/y"} {
		if got, err := ParseSnapshot(bad); !errors.Is(err, ErrInvalid) {
			t.Errorf("%q is taken for %+v", bad, got)
		}
	}
}

func TestDecodeParent(t *testing.T) {
	whole := append([]byte{2, 0, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0}, "abc\x07\x00\x00\x00\x00\x00\x00\x00"...)
	if got, err := decodeParent(whole); err != nil || got != (parentKey{2, "abc", 7}) {
		t.Errorf("%+v, %v", got, err)
	}
	for n := range len(whole) {
		if got, err := decodeParent(whole[:n]); err == nil {
			t.Errorf("%d bytes of it are taken for %+v", n, got)
		}
	}
}
