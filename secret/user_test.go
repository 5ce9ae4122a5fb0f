package secret

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestLacking(t *testing.T) {
	for _, test := range []struct{ has, wants, lacks, granted string }{
		{"profile rbd", "profile rbd", "", "profile rbd"},
		{"allow profile rbd", "profile rbd", "", "allow profile rbd"},
		{"profile  rbd pool=b,profile rbd pool=a", "profile rbd pool=a, profile rbd pool=b", "", "profile  rbd pool=b,profile rbd pool=a"},
		{"profile rbd pool=a, profile rbd pool=ssd", "profile rbd pool=a, profile rbd pool=b", "profile rbd pool=b",
			"profile rbd pool=a, profile rbd pool=ssd, profile rbd pool=b"},
		{"profile rbd-read-only pool=a", "profile rbd pool=a", "profile rbd pool=a", "profile rbd-read-only pool=a, profile rbd pool=a"},
		{"", "profile rbd", "profile rbd", "profile rbd"},
		{"profile rbd", "", "", "profile rbd"},
	} {
		u := User{Caps: map[string]string{"osd": test.has, "mgr": "profile rbd"}}
		lacks := Lacking(u.Caps, map[string]string{"osd": test.wants})
		if lacks["osd"] != test.lacks || (test.lacks == "") != (len(lacks) == 0) {
			t.Errorf("of %q, %q lacks %q", test.wants, test.has, lacks)
		}
		if got := u.Grant(lacks).Caps; got["osd"] != test.granted || got["mgr"] != "profile rbd" || u.Caps["osd"] != test.has {
			t.Errorf("%q is granted %q", test.has, got)
		}
	}
}

// An answer that is not understood is not quoted: it has a key in it.
func TestParseUserShowsNoKey(t *testing.T) {
	for _, answer := range []string{"", someKey, `[{"entity":"client.x","key":"` + someKey + `"}]`, `{"key":"` + someKey + `"}`,
		`[{"entity":"client.cinder","key":["` + someKey + `"]}]`, `[{"entity":"client.cinder","key":"` + someKey + `!"}]`} {
		if _, err := parseUser([]byte(answer), "cinder"); err == nil || strings.Contains(err.Error(), someKey[:10]) {
			t.Errorf("%q gives %v", answer, err)
		}
	}
}

func TestWriteKeyring(t *testing.T) {
	key, err := ParseKey(someKey)
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(t.TempDir(), "etc", "ceph")
	path := filepath.Join(dir, KeyringName("cinder"))
	for range 2 { // the second takes the place of one that anybody can read
		if err := WriteKeyring(path, User{Name: "cinder", Key: key}, -1, -1); err != nil {
			t.Fatal(err)
		}
		info, err := os.Stat(path)
		if err != nil || info.Mode() != 0o600 {
			t.Errorf("keyring is %v, %v", info.Mode(), err)
		}
		if got, err := ReadKey([]string{path}, "cinder"); err != nil || !got.Equal(key) {
			t.Errorf("key is read back as %v, %v", got, err)
		}
		if err := os.Chmod(path, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if err := WriteKeyring(filepath.Join(path, "x"), User{Name: "cinder", Key: key}, -1, -1); err == nil || strings.Contains(err.Error(), someKey) {
		t.Errorf("error is %v", err)
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) != 1 {
		t.Errorf("the folder has %v, %v", left, err)
	}
	if others, err := OtherUsers(path, "cinder"); err != nil || len(others) > 0 {
		t.Errorf("others are %v, %v", others, err)
	}
	if others, err := OtherUsers(path, "glance"); err != nil || len(others) != 1 || others[0] != "client.cinder" {
		t.Errorf("others are %v, %v", others, err)
	}
	if _, err := OtherUsers(dir+"/missing", "x"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("error is %v", err)
	}
}
