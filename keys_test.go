package vmdisk

import (
	"bytes"
	"context"
	"encoding/base64"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/vmdisk/vmdisk/disk"
)

// No cephx key is in any process's arguments or environment, in a machine's XML,
// in a log, or in what vmdisk says, while machines boot, get volumes and move.
func TestKeysAreNeverShown(t *testing.T) {
	var said bytes.Buffer
	cfg := config(0)
	cfg.Observe = func(e Event) {
		said.WriteString(e.Detail)
		if e.Err != nil {
			said.WriteString(e.Err.Error())
		}
	}
	h, err := Open(t.Context(), cfg)
	must(t, err)
	defer func() { must(t, h.Close()) }()
	vm, v := guest(t, h), volume(t, h)
	consoleOf(vm.Name).writes(t, 0, "vda")
	attached(t, h, vm, v)
	if _, err := h.Attach(t.Context(), vm.Name, v.ID, AttachOptions{}); err != nil {
		said.WriteString(err.Error())
	}
	t.Cleanup(func() {
		if _, err := open(t, 1).Detach(context.WithoutCancel(t.Context()), vm.Name, v.ID); err != nil {
			t.Error(err)
		}
	})
	_, err = h.Migrate(t.Context(), vm.Name, testLab.Hosts[1].URI, MigrateOptions{})
	must(t, err)
	if _, err := open(t, 1).Boot(t.Context(), vm.Name, BootOptions{Image: "guest"}); err != nil {
		said.WriteString(err.Error())
	}
	if _, err := disk.Open(t.Context(), disk.Config{Conf: testLab.Conf, Keyring: testLab.Keyring("glance")}); err != nil {
		said.WriteString(err.Error())
	}

	places := map[string][]byte{"events and errors": said.Bytes()}
	for _, host := range testLab.Hosts {
		for _, flag := range []string{"--inactive", "--security-info"} {
			out, _ := exec.Command("virsh", "-c", host.URI, "dumpxml", flag, vm.Name).CombinedOutput()
			places["XML "+flag+" on "+host.Name] = out
		}
	}
	addFiles(t, places, "/proc/[0-9]*/cmdline", "/proc/[0-9]*/environ",
		filepath.Join(filepath.Dir(testLab.Conf), "log*", "*"),
		filepath.Join(testLab.Hosts[0].Dir, "log", "libvirt", "*"),
		filepath.Join(testLab.Hosts[0].Dir, "log", "libvirt", "qemu", "*"),
		filepath.Join(testLab.Hosts[1].Dir, "log", "libvirt", "qemu", "*"),
		filepath.Join(testLab.Hosts[1].Dir, "etc", "libvirt", "qemu", "*.xml"))
	for _, user := range []string{"cinder", "glance", "cinder-backup", "admin"} {
		key := keyOf(t, user)
		raw, err := base64.StdEncoding.DecodeString(key)
		must(t, err)
		for place, text := range places {
			if bytes.Contains(text, []byte(key)) || bytes.Contains(text, raw) {
				t.Errorf("the key of client.%s is in %s", user, place)
			}
		}
	}
}

func addFiles(t *testing.T, places map[string][]byte, patterns ...string) {
	t.Helper()
	for _, pattern := range patterns {
		paths, err := filepath.Glob(pattern)
		if err != nil || len(paths) == 0 {
			t.Fatalf("nothing matches %s: %v", pattern, err)
		}
		for _, path := range paths {
			info, err := os.Stat(path)
			if err != nil || info.IsDir() {
				continue // a process that ended
			}
			text, err := os.ReadFile(path)
			if err == nil {
				places[path] = text
			}
		}
	}
}

func keyOf(t *testing.T, user string) string {
	t.Helper()
	text, err := os.ReadFile(testLab.Keyring(user))
	must(t, err)
	_, key, ok := strings.Cut(string(text), "key = ")
	if !ok {
		t.Fatalf("no key in %s's keyring", user)
	}
	return strings.TrimSpace(strings.SplitN(key, "\n", 2)[0])
}
