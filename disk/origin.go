// Origins: a raw or qcow2, in a file or on a web server, that a disk is read from until
// its data is in Ceph.

package disk

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// ErrOriginAway is an origin that does not answer any more, is not there, or is not
// what it was: what of a disk is not in Ceph yet cannot be read.
var ErrOriginAway = errors.New("the disk's origin is away")

// Origin is what a disk is filled from. Whoever opens the disk reads it, QEMU too.
type Origin struct {
	Where  string `json:"where"`          // the absolute path of a file, or an http or https URL
	Host   string `json:"host,omitempty"` // whose file it is
	Format string `json:"format"`         // "raw" or "qcow2"
	Size   int64  `json:"size"`           // of the disk, in bytes
	// Stamp tells one state of it from another: what the file system or the server
	// says of its size and time.
	Stamp string `json:"stamp"`
}

// IsOrigin says whether what names an image is a file or a URL: it begins with a slash
// or a dot, or has a scheme.
func IsOrigin(spec string) bool {
	return strings.HasPrefix(spec, "/") || strings.HasPrefix(spec, ".") || IsURL(spec)
}

// IsURL says whether an origin is on a web server.
func IsURL(where string) bool { return strings.Contains(where, "://") }

// OpenOrigin judges a file or what a URL leads to as [OpenSource] does, and refuses
// besides, with the same [ErrBadSource], what librbd would read wrong or not at all.
//
// A server must answer requests for ranges of bytes, without redirection; one that does
// not answer is [ErrOriginAway], what it does not have [ErrNotFound], what it does not
// give [ErrPermission].
//
// It blocks for as long as it takes to read a qcow2's tables (1/8192 of its size).
//
// Similar to: qemu-img info and qemu-img check.
func OpenOrigin(ctx context.Context, where string, opts SourceOptions) (Origin, error) {
	opts.plain = true
	if opts.MaxSize <= 0 {
		opts.MaxSize = DefaultMaxSize
	}
	if IsURL(where) {
		return openWeb(ctx, where, opts)
	}
	path, err := filepath.Abs(where)
	if err != nil {
		return Origin{}, err
	}
	src, err := OpenSource(path, opts)
	if err != nil {
		return Origin{}, err
	}
	defer src.Close()
	if fi, err := src.f.Stat(); err != nil || !fi.Mode().IsRegular() {
		return Origin{}, errors.Join(err, src.refuse("is not a regular file"))
	}
	return Origin{Where: path, Format: src.format, Size: src.size, Stamp: src.stamp.String()}, nil
}

// String is the stamp as it is written down.
func (s stamp) String() string {
	return fmt.Sprintf("%d bytes, changed %d.%09d", s.size, s.mtime.Sec, s.mtime.Nsec)
}

// same makes sure that an origin is there and as it was. One that is a file is looked
// for here: whose it is, is the caller's matter.
func (o Origin) same(ctx context.Context) error {
	now, err := o.stampNow(ctx)
	if err == nil && now != o.Stamp && o.Stamp != "" {
		err = errors.New("it was changed (" + o.Stamp + "; now " + now + ")")
	}
	if err != nil {
		return &Error{Object: o.Where, Kind: ErrOriginAway, Err: err, Reason: "the disk cannot be read from there any more: " + cause(err)}
	}
	return nil
}

func (o Origin) stampNow(ctx context.Context) (string, error) {
	if IsURL(o.Where) {
		w, err := askWeb(ctx, o.Where)
		return w.stamp(), err
	}
	f, err := os.Open(o.Where)
	if err != nil {
		return "", err
	}
	defer f.Close()
	s, err := takeStamp(f)
	return s.String(), err
}

// cause is an error without the names that are told before it.
func cause(err error) string {
	var path *os.PathError
	var own *Error
	switch {
	case errors.As(err, &path):
		return path.Err.Error()
	case errors.As(err, &own) && own.Reason != "":
		return own.Reason
	}
	return err.Error()
}

// spec is what librbd is told, and what it keeps with the image. It does not look at
// the last part.
func (o Origin) spec() (string, error) {
	format := map[string]string{"raw": "raw", "qcow2": "qcow"}[o.Format]
	stream := map[string]string{"type": "file", "file_path": o.Where}
	if IsURL(o.Where) {
		stream = map[string]string{"type": "http", "url": o.Where}
	}
	text, err := json.Marshal(map[string]any{"type": format, "stream": stream, "vmdisk": o})
	return string(text), err
}

// originOf reads a spec, also one that is not vmdisk's.
func originOf(spec string) (o Origin, err error) {
	var s struct {
		Type   string
		Stream struct {
			Path string `json:"file_path"`
			URL  string
		}
		Vmdisk Origin
	}
	if err = json.Unmarshal([]byte(spec), &s); err != nil {
		return o, err
	}
	if o = s.Vmdisk; o.Where == "" {
		o.Where, o.Format = s.Stream.Path+s.Stream.URL, map[string]string{"raw": "raw", "qcow": "qcow2"}[s.Type]
	}
	return o, nil
}
