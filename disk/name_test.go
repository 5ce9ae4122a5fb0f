package disk

import (
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestCheckName(t *testing.T) {
	for _, good := range []string{"web1", "debian-12", "a.b_c", "Grüße", "my vm", strings.Repeat("a", maxName)} {
		if err := CheckName("VM", good); err != nil {
			t.Error(err)
		}
	}
	for _, bad := range []string{"", "-a", "a/b", "a@b", "a:b", "a<b", "a..b", ".", "..", " a", "a\n", "a\x00b", `a"b`,
		"a'b", `a\b`, "a,b", "a;b", "\xff", strings.Repeat("a", maxName+1)} {
		if err := CheckName("VM", bad); !errors.Is(err, ErrInvalid) {
			t.Errorf("%q is taken: %v", bad, err)
		}
	}
}

func TestParse(t *testing.T) {
	tests := []struct {
		parse func(string) (Name, error)
		spec  string
		want  Name
	}{
		{ParseImage, "debian-12", Name{"images", "debian-12", "snap"}},
		{ParseImage, "gold/debian@v2", Name{"gold", "debian", "v2"}},
		{ParseVolume, "7b6d", Name{"volumes", "volume-7b6d", ""}},
		{ParseVolume, "volume-7b6d", Name{"volumes", "volume-7b6d", ""}},
		{ParseVolume, "rbd/data", Name{"rbd", "data", ""}},
		{ParseRootDisk, "0562", Name{"vms", "0562_disk", ""}},
		{ParseRootDisk, "0562_disk", Name{"vms", "0562_disk", ""}},
		{ParseRootDisk, "vms/0562_disk.config", Name{"vms", "0562_disk.config", ""}},
	}
	for _, tt := range tests {
		got, err := tt.parse(tt.spec)
		if err != nil {
			t.Error(err)
		}
		if diff := cmp.Diff(tt.want, got); diff != "" {
			t.Errorf("%s: %s", tt.spec, diff)
		}
	}
	for _, bad := range []string{"", "/", "a/", "/a", "a/b/c", "a@", "@a", "a@b@c"} {
		if n, err := ParseImage(bad); !errors.Is(err, ErrInvalid) {
			t.Errorf("%q is taken for %v", bad, n)
		}
	}
	for _, bad := range []string{"a@b", "volumes/a@b"} {
		if n, err := ParseVolume(bad); !errors.Is(err, ErrInvalid) {
			t.Errorf("%q is taken for %v", bad, n)
		}
	}
}

func TestFormatSize(t *testing.T) {
	for bytes, want := range map[int64]string{0: "0 B", 1023: "1023 B", 1 << 20: "1 MiB", 10 << 30: "10 GiB", 3 << 39: "1.5 TiB"} {
		if got := FormatSize(bytes); got != want {
			t.Errorf("FormatSize(%d) is %q, want %q", bytes, got, want)
		}
	}
}

func TestParseMonitors(t *testing.T) {
	const dump = `{"mons":[
		{"name":"a","public_addrs":{"addrvec":[{"type":"v2","addr":"10.0.0.1:3300","nonce":0},{"type":"v1","addr":"10.0.0.1:6789","nonce":0}]}},
		{"name":"b","public_addrs":{"addrvec":[{"type":"v1","addr":"[2001:db8::2]:6789","nonce":0}]}}]}`
	got, err := parseMonitors([]byte(dump))
	if err != nil {
		t.Fatal(err)
	}
	want := []Monitor{{Host: "10.0.0.1", Port: "3300"}, {Host: "2001:db8::2", Port: "6789"}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	for _, bad := range []string{``, `{}`, `{"mons":[{"name":"a"}]}`} {
		if got, err := parseMonitors([]byte(bad)); err == nil {
			t.Errorf("%s gives %v", bad, got)
		}
	}
}
