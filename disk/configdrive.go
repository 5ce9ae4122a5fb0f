// Config drives: what a guest's cloud-init reads at its first boot, as a small
// read-only disk beside the machine's others.

package disk

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/ceph/go-ceph/rbd"
)

// MaxConfigDrive is how many bytes a config drive's files may have together, that
// of Nova's own config drives.
const MaxConfigDrive = 64 << 20

// configLabel is what cloud-init knows the disk by. Source: cloud-init, NoCloud.
const configLabel = "cidata"

// ConfigDrive is what cloud-init's NoCloud is given. UserData may hold secrets: it
// is in no error and no event, and printing a ConfigDrive shows sizes only.
type ConfigDrive struct {
	UserData      []byte // "#cloud-config", a script …
	MetaData      []byte // nil is the machine's UUID and name
	NetworkConfig []byte // nil is what cloud-init does by itself
}

// Format implements [fmt.Formatter]; it shows sizes only, whatever the verb.
func (d ConfigDrive) Format(f fmt.State, _ rune) { fmt.Fprint(f, d.sizes()) }

// MarshalText implements [encoding.TextMarshaler]; it shows sizes only.
func (d ConfigDrive) MarshalText() ([]byte, error) { return []byte(d.sizes()), nil }

func (d ConfigDrive) sizes() string {
	return fmt.Sprintf("config drive of %d, %d and %d bytes", len(d.UserData), len(d.MetaData), len(d.NetworkConfig))
}

// Check refuses what is too large for a config drive.
func (d ConfigDrive) Check() error {
	if n := len(d.UserData) + len(d.MetaData) + len(d.NetworkConfig); n > MaxConfigDrive {
		return invalid("config drive", "its files have %s, at most %s are allowed", FormatSize(int64(n)), FormatSize(MaxConfigDrive))
	}
	return nil
}

// Image is the drive as the disk of a machine: ISO 9660 with the label "cidata".
func (d ConfigDrive) Image(vm, uuid string) ([]byte, error) {
	if d.MetaData == nil {
		name, err := json.Marshal(vm) // which YAML reads too, whatever is in the name
		if err != nil {
			return nil, err
		}
		d.MetaData = fmt.Appendf(nil, "instance-id: %s\nlocal-hostname: %s\n", uuid, name)
	}
	files := []isoFile{{"meta-data", d.MetaData}, {"user-data", d.UserData}}
	if d.NetworkConfig != nil {
		files = append(files, isoFile{"network-config", d.NetworkConfig})
	}
	return writeISO(configLabel, time.Now(), files), nil
}

// WriteAll writes data to the beginning of an image, which must be as large.
//
// Similar to: rbd import, into an image that is there.
func (c *Cluster) WriteAll(ctx context.Context, n Name, data []byte) error {
	const chunk = 4 << 20
	return c.edit(ctx, n, func(img *rbd.Image) error {
		for off := 0; off < len(data); off += chunk {
			if err := ctx.Err(); err != nil {
				return err
			}
			if _, err := img.WriteAt(data[off:min(off+chunk, len(data))], int64(off)); err != nil {
				return wrap("write to", n.String(), err)
			}
		}
		return wrap("flush", n.String(), img.Flush())
	})
}
