package session

import (
	"context"
	"net/http"

	"github.com/danielgtaylor/huma/v2"

	"tideline/functions/api"
)

// affinityCookies are what an ALB keeps its choice of a node in. A browser's script can't be relied on to remove them (the local balancer's
// is HttpOnly), and a node can't either: the ALB renews them in every answer of its sticky target group. Answers of functions come
// from another group, without stickiness.
var affinityCookies = []string{"AWSALB", "AWSALBCORS"}

type forgottenOutput struct {
	SetCookie []string `header:"Set-Cookie"`
}

func (s *Service) registerNode(a *api.API) {
	api.Register(a, huma.Operation{OperationID: "forget-node", Method: http.MethodDelete, Path: "/api/session/node", Tags: []string{tag},
		DefaultStatus: http.StatusNoContent, Summary: "Let the load balancer choose again",
		Description: "Removes the cookies by which the load balancer brings this browser back to the same node. The next connection goes " +
			"wherever the balancer likes, which may be the same node. No session is needed.",
		Errors: []int{403, 422}}, s.forgetNode)
}

func (s *Service) forgetNode(context.Context, *struct{}) (*forgottenOutput, error) {
	out := &forgottenOutput{}
	for _, name := range affinityCookies {
		c := http.Cookie{Name: name, Path: "/", MaxAge: -1, HttpOnly: true, Secure: s.o.PublicScheme == "https", SameSite: http.SameSiteLaxMode}
		out.SetCookie = append(out.SetCookie, c.String())
	}
	return out, nil
}
