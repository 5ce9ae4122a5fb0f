package secret

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

const someKey = "AQBSdFhcVVhMDBAAkFhWhEfBEbyxzEIdWlSNpQ=="

func TestKeyIsNeverShown(t *testing.T) {
	key, err := ParseKey(someKey)
	if err != nil {
		t.Fatal(err)
	}
	j, err := json.Marshal(map[string]any{"key": key})
	if err != nil {
		t.Fatal(err)
	}
	shown := fmt.Sprintf("%v %+v %#v %s %q %x %d %v %v %s", key, key, key, key, key, key, key,
		struct{ K Key }{key}, &key, j)
	for _, part := range []string{someKey, string(key.raw), "0152", "[82 ", "raw"} {
		if strings.Contains(shown, part) {
			t.Errorf("%q is shown in %s", part, shown)
		}
	}
}

func TestReadKey(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	missing := filepath.Join(dir, "missing")
	other := write("other", "[client.glance]\n\tkey = "+someKey+"\n")
	good := write("good", "# made by ceph\n[client.cinder]\n\tkey = "+someKey+"\n\tcaps mon = \"profile rbd\"\n")
	bad := write("bad", "[client.cinder]\nkey = not base64!\n")
	if key, err := ReadKey([]string{missing, other, good}, "cinder"); err != nil || len(key.raw) == 0 {
		t.Errorf("key is %v, %v", key, err)
	}
	if _, err := ReadKey([]string{missing, other}, "cinder"); !errors.Is(err, ErrNoKey) {
		t.Errorf("error is %v", err)
	}
	if _, err := ReadKey([]string{bad}, "cinder"); err == nil || strings.Contains(err.Error(), "not base64!") {
		t.Errorf("error is %v", err)
	}
}

func TestUUID(t *testing.T) {
	const fsid = "1292f718-ac5e-471b-b1ca-c1d42d73026c"
	if a, b := UUID(fsid, "cinder"), UUID(fsid, "cinder"); a != b || len(a) != 36 || a[14] != '5' {
		t.Errorf("UUIDs are %s and %s", a, b)
	}
	if UUID(fsid, "cinder") == UUID(fsid, "glance") {
		t.Error("two users have one UUID")
	}
}
