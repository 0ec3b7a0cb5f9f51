# /flaky is safe to try again when it answers 503.
Kind = "service-router"
Name = "api"
Routes = [
  {
    Match {
      HTTP {
        PathPrefix = "/flaky/"
      }
    }
    Destination {
      ServiceSubset = "v1"
{{- if .Retry}}
      NumRetries           = 2
      RetryOnStatusCodes   = [503]
{{- end}}
    }
  },
]
