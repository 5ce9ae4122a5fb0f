package vmdisk

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/vmdisk/vmdisk/disk"
)

const clientText = `rbd cache = true
rbd cache writethrough until flush = true
rbd cache policy = writeback
admin socket = /var/run/ceph/guests/$cluster-$type.$id.$pid.$cctid.asok
log file = /var/log/qemu/qemu-guest-$pid.log
rbd concurrent management ops = 20
`

// What is there stays, byte for byte; what is missing is added behind the section's
// last option; what differs is told, and replaced only when that is asked for.
func TestCompleteConf(t *testing.T) {
	crlf := func(s string) string { return strings.ReplaceAll(s, "\n", "\r\n") }
	rest := strings.SplitAfter(clientText, "\n")
	for _, test := range []struct {
		name, text, want, forced string // forced is "" if it is want
		added, differing         int
	}{
		{"empty", "", "[client]\n" + clientText, "", 6, 0},
		{"no section", "[global]\nfsid = 1", "[global]\nfsid = 1\n\n[client]\n" + clientText, "", 6, 0},
		{"empty section", "[client]\n\n# the end\n", "[client]\n" + clientText + "\n# the end\n", "", 6, 0},
		{"whole", "# mine\n[client]\n" + clientText, "# mine\n[client]\n" + clientText, "", 0, 0},
		{"other spelling", "[client]\nrbd_cache=yes\nrbd  cache\twritethrough_until_flush = 1 # really\nrbd_cache_policy = \"writeback\"\nadmin_socket = /a\nlog_file = /b\nrbd_concurrent management_ops = 7\n",
			"[client]\nrbd_cache=yes\nrbd  cache\twritethrough_until_flush = 1 # really\nrbd_cache_policy = \"writeback\"\nadmin_socket = /a\nlog_file = /b\nrbd_concurrent management_ops = 7\n", "", 0, 0},
		{"a dash is no space", "[client]\nrbd-cache = true\n", "[client]\nrbd-cache = true\n" + clientText, "", 6, 0},
		{"between sections", "[client]\n\t# cache\n\trbd cache = true\n\n[osd]\nrbd cache policy = x\n",
			"[client]\n\t# cache\n\trbd cache = true\n\t" + strings.Join(rest[1:6], "\t") + "\n[osd]\nrbd cache policy = x\n", "", 5, 0},
		{"differs", "[client]\nrbd_cache = false ; why\n" + strings.Join(rest[1:], ""),
			"[client]\nrbd_cache = false ; why\n" + strings.Join(rest[1:], ""),
			"[client]\nrbd_cache = true ; why\n" + strings.Join(rest[1:], ""), 0, 1},
		{"goes on", "[client]\nrbd cache policy = \\\n  writearound\n" + rest[0] + rest[1] + strings.Join(rest[3:], ""),
			"[client]\nrbd cache policy = \\\n  writearound\n" + rest[0] + rest[1] + strings.Join(rest[3:], ""),
			"[client]\nrbd cache policy = writeback\n" + rest[0] + rest[1] + strings.Join(rest[3:], ""), 0, 1},
		{"the last one counts", "[client]\nrbd cache = false\n[client]\n" + clientText, "[client]\nrbd cache = false\n[client]\n" + clientText, "", 0, 0},
		{"in a comment", "[client]\n# rbd cache = true\n", "[client]\n" + clientText + "# rbd cache = true\n", "", 6, 0},
		{"line ends", crlf("[global]\nfsid = 1\n[client]\n" + rest[0]), crlf("[global]\nfsid = 1\n[client]\n" + clientText), "", 5, 0},
		{"another client", "[client.cinder]\nrbd cache = true\n", "[client.cinder]\nrbd cache = true\n\n[client]\n" + clientText, "", 6, 0},
	} {
		t.Run(test.name, func(t *testing.T) {
			out, added, differing := completeConf(test.text, clientOptions(), false)
			if diff := cmp.Diff(test.want, out); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
			if len(added) != test.added || len(differing) != test.differing {
				t.Errorf("added %q, differing %v", added, differing)
			}
			if test.forced == "" {
				test.forced = test.want
			}
			out, _, _ = completeConf(test.text, clientOptions(), true)
			if diff := cmp.Diff(test.forced, out); diff != "" {
				t.Errorf("forced (-want +got):\n%s", diff)
			}
			if again, added, differing := completeConf(out, clientOptions(), true); again != out || len(added)+len(differing) > 0 {
				t.Errorf("a second time: added %q, differing %v", added, differing)
			}
			readBack(t, out)
		})
	}
}

// readBack has librados say what a guest is told.
func readBack(t *testing.T, text string) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "ceph.conf")
	must(t, os.WriteFile(path, []byte(text), 0o600))
	got, err := disk.ReadConf(path, guestUser, "rbd_cache", "rbd_cache_policy", "rbd_cache_writethrough_until_flush")
	must(t, err)
	if got["rbd_cache"] != "true" || got["rbd_cache_policy"] != "writeback" || got["rbd_cache_writethrough_until_flush"] != "true" {
		t.Errorf("librados reads %v", got)
	}
}
