// An origin on a web server, asked in the way in which librbd will ask it: HTTP/1.1,
// ranges of bytes, no redirection followed, certificates by the system's roots.

package disk

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// webTimeout is how long a server may take for one answer.
const webTimeout = 10 * time.Second

// webClient asks without help: librbd has none either.
var webClient = &http.Client{
	Timeout: webTimeout,
	Transport: &http.Transport{
		DisableCompression: true,
		// Not HTTP/2, which librbd does not speak.
		TLSNextProto:        map[string]func(string, *tls.Conn) http.RoundTripper{},
		MaxIdleConnsPerHost: 1,
		IdleConnTimeout:     webTimeout,
	},
	CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
}

// webHost is what librbd 16.2 takes for a host; it knows no [::1].
var webHost = regexp.MustCompile(`^[A-Za-z0-9._-]+$`)

// webFile is what a server says of a file.
type webFile struct {
	ctx  context.Context
	url  string
	size int64
	tag  string // ETag and Last-Modified
}

func (w *webFile) stamp() string {
	if w == nil {
		return ""
	}
	return strings.TrimSpace(fmt.Sprintf("%d bytes %s", w.size, w.tag))
}

// openWeb judges what a URL leads to.
func openWeb(ctx context.Context, where string, opts SourceOptions) (Origin, error) {
	w, err := askWeb(ctx, where)
	if err != nil {
		return Origin{}, err
	}
	q := &qcow2{f: w, fileSize: w.size, plain: true}
	format, size, err := q.judgeContent(opts)
	var own *Error
	switch {
	case errors.As(err, &own), ctx.Err() != nil:
		return Origin{}, err
	case err != nil:
		return Origin{}, fmt.Errorf("%w: %s: %w", ErrBadSource, where, err)
	}
	return Origin{Where: where, Format: format, Size: size, Stamp: w.stamp()}, nil
}

// askWeb asks what there is and makes sure that librbd could read it: it asks for the
// size as librbd does, and for the first byte.
func askWeb(ctx context.Context, where string) (*webFile, error) {
	w := &webFile{ctx: ctx, url: where}
	u, err := url.Parse(where)
	switch {
	case err != nil || u.Scheme != "http" && u.Scheme != "https":
		return nil, w.refuse("librbd reads http:// and https:// only")
	case u.User != nil:
		return nil, w.refuse("librbd sends no user and password, and they would be kept with the image")
	case !webHost.MatchString(u.Hostname()) || u.Fragment != "":
		return nil, w.refuse("librbd does not take such a URL; it must be http://HOST[:PORT]/PATH")
	}
	head, err := w.ask(http.MethodHead, "")
	if err != nil {
		return nil, err
	}
	head.Body.Close()
	if head.StatusCode != http.StatusOK || head.ContentLength < 0 {
		return nil, w.refuse("the server does not say how large it is")
	}
	if head.ContentLength == 0 {
		return nil, w.refuse("the file is empty")
	}
	w.size = head.ContentLength
	w.tag = strings.TrimSpace(head.Header.Get("ETag") + " " + head.Header.Get("Last-Modified"))
	if _, err := w.ReadAt(make([]byte, 1), 0); err != nil {
		return nil, err
	}
	return w, nil
}

// ReadAt reads a range of bytes.
func (w *webFile) ReadAt(p []byte, off int64) (int, error) {
	want := p[:max(0, min(int64(len(p)), w.size-off))]
	if len(want) == 0 {
		return 0, io.EOF
	}
	r, err := w.ask(http.MethodGet, fmt.Sprintf("bytes=%d-%d", off, off+int64(len(want))-1))
	if err != nil {
		return 0, err
	}
	defer r.Body.Close()
	if r.StatusCode != http.StatusPartialContent {
		return 0, w.refuse("the server does not give parts of it (no range requests)")
	}
	if size := r.Header.Get("Content-Range"); !strings.HasSuffix(size, "/"+strconv.FormatInt(w.size, 10)) && !strings.HasSuffix(size, "/*") {
		return 0, w.refuse("the server says that it has %d bytes, and then %q", w.size, size)
	}
	n, err := io.ReadFull(r.Body, want)
	if err != nil {
		return n, w.away(err)
	}
	if n < len(p) {
		err = io.EOF
	}
	return n, err
}

// ask sends one request; what is no answer, or one that librbd does not take, is an error.
func (w *webFile) ask(method, span string) (*http.Response, error) {
	req, err := http.NewRequestWithContext(w.ctx, method, w.url, nil)
	if err != nil {
		return nil, w.refuse("%w", err)
	}
	if span != "" {
		req.Header.Set("Range", span)
	}
	r, err := webClient.Do(req)
	if err != nil {
		if w.ctx.Err() != nil {
			return nil, w.ctx.Err()
		}
		return nil, w.away(err)
	}
	e := &Error{Object: w.url, Reason: "the server answers " + r.Status}
	switch {
	case r.StatusCode >= 200 && r.StatusCode < 300:
		return r, nil
	case r.StatusCode >= 300 && r.StatusCode < 400:
		err = w.refuse("the server redirects, which librbd does not follow; name what it redirects to: %s", r.Header.Get("Location"))
	case r.StatusCode == http.StatusNotFound || r.StatusCode == http.StatusGone:
		e.Kind, err = ErrNotFound, e
	case r.StatusCode == http.StatusUnauthorized || r.StatusCode == http.StatusForbidden:
		e.Kind, err = ErrPermission, e
	case r.StatusCode == http.StatusMethodNotAllowed || r.StatusCode == http.StatusNotImplemented:
		err = w.refuse("the server does not take %s requests (%s), which librbd needs", method, r.Status)
	default:
		e.Kind, err = ErrOriginAway, e
	}
	r.Body.Close()
	return nil, err
}

func (w *webFile) refuse(format string, args ...any) error {
	return fmt.Errorf("%w: %s: %w", ErrBadSource, w.url, fmt.Errorf(format, args...))
}

// away is a server that does not answer, or whose certificate is not believed.
func (w *webFile) away(err error) error {
	var asked *url.Error
	if errors.As(err, &asked) {
		err = asked.Err
	}
	var cert *tls.CertificateVerificationError
	if errors.As(err, &cert) {
		return w.refuse("its certificate is not believed, by librbd neither: %w", cert.Err)
	}
	return &Error{Object: w.url, Kind: ErrOriginAway, Err: err, Reason: "the server does not answer: " + err.Error()}
}
