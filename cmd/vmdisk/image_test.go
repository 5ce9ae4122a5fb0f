package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// A guest's image goes out and in by the command: every format, the trash, JSON, and
// what is refused.
func TestImageCommands(t *testing.T) {
	works(t, "image", "import", testLab.Guest, "--name", "cli image")
	atEnd(t, "image", "rm", "cli image")
	dir := t.TempDir()
	want, err := os.ReadFile(testLab.Guest)
	if err != nil {
		t.Fatal(err)
	}
	raw, packed := filepath.Join(dir, "out"), filepath.Join(dir, "out.qcow2")
	var e struct {
		ID, File, Format, Checksum string
		Size, Used                 int64
	}
	decode(t, works(t, "image", "export", "cli image", raw, "-o", "json", "--checksum", "md5"), &e)
	if got, err := os.ReadFile(raw); err != nil || !bytes.Equal(got, want) || e.File != raw || e.Format != "raw" ||
		e.Size != int64(len(want)) || e.Used == 0 || e.Used >= e.Size || len(e.Checksum) != 32 {
		t.Errorf("exported %+v, %v", e, err)
	}
	decode(t, works(t, "-o", "json", "image", "export", "cli image", packed), &e)
	if e.Format != "qcow2" {
		t.Errorf("exported %+v", e)
	}
	stdout, stderr, code := vmdiskIs(t, "image", "export", "cli image", "-", "--checksum", "sha256", "-o", "json")
	if code != 0 || stdout != string(want) || !strings.Contains(stderr, "sha256  ") {
		t.Errorf("exit code %d, %d bytes, %s", code, len(stdout), stderr)
	}
	for _, tt := range []struct {
		args []string
		code int
		says string
	}{
		{[]string{"image", "export", "cli image", raw}, 17, "--force"},
		{[]string{"image", "export", "cli image"}, 22, "FILE is missing"},
		{[]string{"image", "export", "cli image", dir}, 22, "no regular file"},
		{[]string{"image", "export", "cli image", dir + "/none/x"}, 2, "none/x"},
		{[]string{"image", "export", "cli image", raw, "--format", "vmdk"}, 22, "vmdk"},
		{[]string{"image", "export", "cli image", raw, "--checksum", "crc"}, 22, "crc"},
		{[]string{"image", "export", "cli image", "-", "--format", "qcow2"}, 22, "streamed"},
		{[]string{"image", "export", "nothing", raw + "2"}, 2, "nothing"},
		{[]string{"image", "rm", "cli image", "--expires", "1d"}, 22, "--trash"},
		{[]string{"image", "rm", "cli image", "--trash", "--expires", "soon"}, 22, "soon"},
		{[]string{"image", "restore", "cli image"}, 2, "not in the trash"},
		{[]string{"image", "purge", "nothing"}, 2, "not in the trash"},
		{[]string{"boot", "x", "--image", "cli image", "--format", "qcow2"}, 22, "qcow2"},
		{[]string{"cluster", "init", "--cluster-only", "--host-only"}, 22, "exclude"},
		{[]string{"cluster", "init", "--pg-num", "0"}, 22, "pg-num"},
		{[]string{"cluster", "init", "--user", "bob"}, 22, "client.bob"},
		{[]string{"cluster", "init", "--keyring-owner", "no-such"}, 22, "no-such"},
		{[]string{"cluster", "init", "extra"}, 22, "extra"},
		{[]string{"cluster", "init"}, 1, "client.cinder lacks the mon cap"},
		{[]string{"cluster", "df", "no-pool"}, 2, "no-pool"},
	} {
		stdout, stderr, code := vmdiskIs(t, append(tt.args, "--progress", "none")...)
		if code != tt.code || stdout != "" || !strings.Contains(stderr, tt.says) {
			t.Errorf("%q: exit code %d, want %d with %q: %s%s", tt.args, code, tt.code, tt.says, stdout, stderr)
		}
	}
	works(t, "image", "export", "cli image", raw, "--force")

	var trash struct {
		ID               string
		Deleted, Expires time.Time
	}
	decode(t, works(t, "image", "rm", "cli image", "--trash", "--expires", "2d", "-o", "json"), &trash)
	if trash.ID != "cli image" || trash.Expires.Sub(trash.Deleted).Round(time.Hour) != 48*time.Hour {
		t.Errorf("in the trash is %+v", trash)
	}
	if ls := works(t, "image", "ls", "--trash"); !strings.Contains(ls, "cli image") {
		t.Errorf("the trash is %s", ls)
	}
	if _, stderr, code := vmdiskIs(t, "image", "purge", "cli image"); code != 1 || !strings.Contains(stderr, "purge --force") {
		t.Errorf("exit code %d: %s", code, stderr)
	}
	var i struct{ ID, Format string }
	decode(t, works(t, "-o", "json", "image", "restore", "cli image"), &i)
	if i.ID != "cli image" || i.Format != "raw" {
		t.Errorf("restored is %+v", i)
	}
	var df struct {
		Total, Used, Available int64
		Pools                  []struct {
			Pool                           string
			Total, Used, Available, Stored int64
		}
	}
	decode(t, works(t, "cluster", "df", "-o", "json"), &df)
	if len(df.Pools) != 4 || df.Pools[0].Pool != "images" || df.Pools[0].Stored == 0 || df.Total == 0 {
		t.Errorf("df is %+v", df)
	}
	left, err := os.ReadDir(dir)
	if err != nil || len(left) != 2 {
		t.Errorf("files are %v, %v", left, err)
	}
}

func TestParseKeep(t *testing.T) {
	for text, want := range map[string]time.Duration{"14d": 14 * 24 * time.Hour, "0.5d": 12 * time.Hour, "90m": 90 * time.Minute, "0s": 0} {
		if d, err := parseKeep(text); err != nil || d != want {
			t.Errorf("%s is %v, %v", text, d, err)
		}
	}
	for _, text := range []string{"", "d", "14", "-1d", "-5s", "1e300d", "nand", "x"} {
		if d, err := parseKeep(text); err == nil {
			t.Errorf("%q is %v", text, d)
		}
	}
}
