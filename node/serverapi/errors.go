package serverapi

import (
	"errors"
	"fmt"
	"net/http"

	"tideline/node/conn"
)

// Error is what a command failed with: one of the protocol's codes, and its words, with what is wrong behind a colon.
type Error struct {
	Code    uint32 `json:"code"`
	Message string `json:"message"`
}

func (e *Error) Error() string { return fmt.Sprintf("%d %s", e.Code, e.Message) }

// The codes that the API answers with.
var (
	errInternal        = &Error{100, "internal server error"}
	errUnauthorized    = &Error{101, "unauthorized"}
	errUnknownChannel  = &Error{102, "unknown channel"}
	errNotFound        = &Error{104, "not found"}
	errLimitExceeded   = &Error{106, "limit exceeded"}
	errBadRequest      = &Error{107, "bad request"}
	errNotAvailable    = &Error{108, "not available"}
	errTooManyRequests = &Error{111, "too many requests"}
	errUnrecoverable   = &Error{112, "unrecoverable position"}
)

// because says what about a request an error is about.
func because(e *Error, format string, args ...any) *Error {
	return &Error{e.Code, e.Message + ": " + fmt.Sprintf(format, args...)}
}

// errorOf is what a caller is told: nothing of what is inside.
func errorOf(err error) *Error {
	var e *Error
	if errors.As(err, &e) {
		return e
	}
	code, message := conn.Refusal(err)
	return &Error{code, message}
}

// about names the field that a refusal of the sockets' is about. Codes that say it themselves stay as they are.
func about(field string, err error) error {
	e := errorOf(err)
	if err == nil || e.Code == errInternal.Code || e.Code == errUnknownChannel.Code {
		return err
	}
	return because(e, "%s", field)
}

// status is the HTTP status that stands for the error where a request wants one.
func (e *Error) status() int {
	switch e.Code {
	case errUnauthorized.Code:
		return http.StatusUnauthorized
	case errUnknownChannel.Code, errNotFound.Code:
		return http.StatusNotFound
	case errLimitExceeded.Code, errBadRequest.Code, errNotAvailable.Code:
		return http.StatusBadRequest
	case errTooManyRequests.Code:
		return http.StatusTooManyRequests
	case errUnrecoverable.Code:
		return http.StatusRequestedRangeNotSatisfiable
	}
	return http.StatusInternalServerError
}
