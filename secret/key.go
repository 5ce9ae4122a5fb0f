// The key of a cephx user, and the keyring that it is read from.

package secret

import (
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"strings"

	"gopkg.in/ini.v1"
)

// ErrNoKey is wrapped by the error for a user who is in none of the keyrings.
var ErrNoKey = errors.New("no key")

// Key is a cephx key. It formats as "[redacted]" whatever the verb.
type Key struct{ raw []byte }

const redacted = "[redacted]"

// Format implements [fmt.Formatter]; it never shows the key.
func (Key) Format(f fmt.State, _ rune) { _, _ = f.Write([]byte(redacted)) }

// LogValue implements [slog.LogValuer]; it never shows the key.
func (Key) LogValue() slog.Value { return slog.StringValue(redacted) }

// MarshalText implements [encoding.TextMarshaler]; it never shows the key.
func (Key) MarshalText() ([]byte, error) { return []byte(redacted), nil }

// ParseKey reads a key in the base64 form that keyrings have.
func ParseKey(text string) (Key, error) {
	raw, err := base64.StdEncoding.DecodeString(strings.TrimSpace(text))
	if err != nil || len(raw) == 0 {
		return Key{}, errors.New("the key is not base64") // the error would quote it
	}
	return Key{raw}, nil
}

// ReadKey reads the key of client.USER from the first of the keyrings that has
// it. Files that do not exist are passed over; [ErrNoKey] says where it looked.
//
// Similar to: ceph auth get-key, from the keyring instead of the cluster.
func ReadKey(keyrings []string, user string) (Key, error) {
	for _, path := range keyrings {
		file, err := ini.LoadSources(ini.LoadOptions{SkipUnrecognizableLines: true}, path)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return Key{}, fmt.Errorf("read keyring %s: %w", path, err)
		}
		text := file.Section("client." + user).Key("key").String()
		if text == "" {
			continue
		}
		key, err := ParseKey(text)
		if err != nil {
			return Key{}, fmt.Errorf("read keyring %s, client.%s: %w", path, user, err)
		}
		return key, nil
	}
	return Key{}, fmt.Errorf("%w of client.%s in %s", ErrNoKey, user, strings.Join(keyrings, ", "))
}
