package demo

import (
	"context"
	"fmt"
	"net"
	"net/http"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

// quoteMethod is the one method of the gRPC service: it takes a topic and returns a
// quote. Its messages are protobuf's own string wrappers, so that there is nothing to
// generate.
const quoteMethod = "/demo.Quotes/Get"

type quotes interface {
	Get(ctx context.Context, topic *wrapperspb.StringValue) (*wrapperspb.StringValue, error)
}

var quotesService = grpc.ServiceDesc{
	ServiceName: "demo.Quotes",
	HandlerType: (*quotes)(nil),
	Methods: []grpc.MethodDesc{{MethodName: "Get", Handler: func(srv any, ctx context.Context, decode func(any) error, intercept grpc.UnaryServerInterceptor) (any, error) {
		topic := new(wrapperspb.StringValue)
		if err := decode(topic); err != nil {
			return nil, err
		}
		if intercept == nil {
			return srv.(quotes).Get(ctx, topic)
		}
		return intercept(ctx, topic, &grpc.UnaryServerInfo{Server: srv, FullMethod: quoteMethod}, func(ctx context.Context, req any) (any, error) {
			return srv.(quotes).Get(ctx, req.(*wrapperspb.StringValue))
		})
	}}},
}

type quoteBook struct{}

func (quoteBook) Get(_ context.Context, topic *wrapperspb.StringValue) (*wrapperspb.StringValue, error) {
	return wrapperspb.String(fmt.Sprintf("of %s nothing is known for certain", topic.GetValue())), nil
}

func serveQuotes(ctx context.Context, ln net.Listener) error {
	srv := grpc.NewServer()
	srv.RegisterService(&quotesService, quoteBook{})
	defer context.AfterFunc(ctx, srv.GracefulStop)()
	return srv.Serve(ln)
}

// quoteHandler asks the gRPC service at addr, all requests on one connection.
func quoteHandler(addr string) (http.Handler, error) {
	conn, err := grpc.NewClient("passthrough:///"+addr, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return nil, err
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		ctx := r.Context()
		if id := r.Header.Get("X-Request-Id"); id != "" {
			ctx = metadata.AppendToOutgoingContext(ctx, "x-request-id", id)
		}
		quote := new(wrapperspb.StringValue)
		if err := conn.Invoke(ctx, quoteMethod, wrapperspb.String("chain mail"), quote); err != nil {
			http.Error(w, err.Error(), http.StatusBadGateway)
			return
		}
		reply(w, map[string]string{"from": "quotes", "quote": quote.GetValue()})
	}), nil
}
