package disk

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	osexec "os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"
)

const configUUID = "0abeb490-2eb5-4aba-b3f1-d27f87dd1ebe"

// What is on a config drive is read with tools that know nothing of vmdisk: blkid
// for what cloud-init looks for, isoinfo for the files under each of their names.
func TestConfigDrive(t *testing.T) {
	long := bytes.Repeat([]byte("0123456789abcde\n"), 1<<10)
	for name, tt := range map[string]struct {
		drive ConfigDrive
		want  map[string]string
	}{
		"user data alone": {
			ConfigDrive{UserData: []byte("#cloud-config\n")},
			map[string]string{"user-data": "#cloud-config\n",
				"meta-data": "instance-id: " + configUUID + "\nlocal-hostname: \"web1\"\n"},
		},
		"all": {
			ConfigDrive{UserData: long, MetaData: []byte("instance-id: x\n"), NetworkConfig: []byte("version: 2\n")},
			map[string]string{"user-data": string(long), "meta-data": "instance-id: x\n", "network-config": "version: 2\n"},
		},
		"empty": {
			ConfigDrive{UserData: []byte{}, MetaData: []byte{}},
			map[string]string{"user-data": "", "meta-data": ""},
		},
	} {
		t.Run(name, func(t *testing.T) {
			image, err := tt.drive.Image("web1", configUUID)
			if err != nil {
				t.Fatal(err)
			}
			file := filepath.Join(t.TempDir(), "config")
			if err := os.WriteFile(file, image, 0o600); err != nil {
				t.Fatal(err)
			}
			if got := tool(t, "blkid", "-p", "-o", "export", file); !strings.Contains(got, "\nLABEL=cidata\n") || !strings.Contains(got, "\nTYPE=iso9660\n") {
				t.Errorf("blkid says %s", got)
			}
			for names, flag := range map[string]string{"Rock Ridge": "-R", "Joliet": "-J"} {
				got := map[string]string{}
				for _, path := range strings.Fields(tool(t, "isoinfo", "-i", file, flag, "-f")) {
					got[strings.TrimPrefix(path, "/")] = tool(t, "isoinfo", "-i", file, flag, "-x", path)
				}
				if diff := cmp.Diff(tt.want, got); diff != "" {
					t.Errorf("%s: %s", names, diff)
				}
			}
			// Without either the kernel makes lower case of what it finds.
			if plain := tool(t, "isoinfo", "-i", file, "-f"); !strings.Contains(plain, "/USER_DATA.;1") {
				t.Errorf("plain names are %s", plain)
			}
			if listing := tool(t, "isoinfo", "-i", file, "-R", "-l"); !regexp.MustCompile(`(?m)^-r--r--r--.* user-data\s*$`).MatchString(listing) {
				t.Errorf("listing is %s", listing)
			}
		})
	}
}

func tool(t *testing.T, name string, args ...string) string {
	t.Helper()
	out, err := osexec.Command(name, args...).Output()
	if err != nil {
		t.Fatalf("%s %v: %v", name, args, err)
	}
	return string(out)
}

func TestConfigDriveIsSecret(t *testing.T) {
	d := ConfigDrive{UserData: []byte("hunter2"), MetaData: []byte("hunter2"), NetworkConfig: []byte("hunter2")}
	text, err := json.Marshal(map[string]any{"a": d, "b": &d})
	if err != nil {
		t.Fatal(err)
	}
	said := string(text) + fmt.Sprintf("%v %+v %#v %s %q %x %v", d, d, d, d, d, d, &d)
	for _, secret := range []string{"hunter2", fmt.Sprintf("%x", "hunter2"), "[104 117 110 116 101 114 50]"} {
		if strings.Contains(said, secret) {
			t.Errorf("%q is in %s", secret, said)
		}
	}
}

func TestConfigDriveTooLarge(t *testing.T) {
	d := ConfigDrive{UserData: make([]byte, MaxConfigDrive)}
	if err := d.Check(); err != nil {
		t.Error(err)
	}
	d.MetaData = []byte("x")
	if err := d.Check(); !errors.Is(err, ErrInvalid) || !strings.Contains(err.Error(), "64 MiB") {
		t.Errorf("error is %v", err)
	}
}

func TestSwapHeader(t *testing.T) {
	id := uuid.MustParse(configUUID)
	file := filepath.Join(t.TempDir(), "swap")
	if err := os.WriteFile(file, swapHeader(16<<20, id), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(file, 16<<20); err != nil {
		t.Fatal(err)
	}
	if got := tool(t, "blkid", "-p", "-o", "export", file); !strings.Contains(got, "\nTYPE=swap\n") || !strings.Contains(got, "\nUUID="+configUUID+"\n") {
		t.Errorf("blkid says %s", got)
	}
	// mkswap writes the same page.
	want := filepath.Join(t.TempDir(), "mkswap")
	if err := os.WriteFile(want, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(want, 16<<20); err != nil {
		t.Fatal(err)
	}
	tool(t, "mkswap", "-U", configUUID, want)
	theirs, err := os.ReadFile(want)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(theirs[:swapPage], swapHeader(16<<20, id)); diff != "" {
		t.Error(diff)
	}
}

func TestRole(t *testing.T) {
	for image, want := range map[string]string{
		RootDiskName(configUUID): RoleRoot, SwapDiskName(configUUID): RoleSwap, EphemeralDiskName(configUUID, 12): RoleEphemeral,
		configUUID + "_disk.local": RoleEphemeral, ConfigDiskName(configUUID): RoleConfig, RescueDiskName(configUUID): RoleRescue,
		configUUID + "_disk.config.rescue": RoleRescue, configUUID + "_kernel": RoleOther, "volume-" + configUUID: RoleVolume,
	} {
		if got := Role(configUUID, image); got != want {
			t.Errorf("%s is %s, want %s", image, got, want)
		}
	}
}
