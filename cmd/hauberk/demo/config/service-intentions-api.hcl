# Only web may call the api, and only to read.
Kind = "service-intentions"
Name = "api"
Sources = [
  {
    Name = "web"
    Permissions = [
      {
        Action = "allow"
        HTTP {
          PathPrefix = "/"
          Methods    = ["GET", "HEAD"]
        }
      },
    ]
  },
{{- if .Intruder}}
  {
    Name   = "intruder"
    Action = "allow"
  },
{{- end}}
]
