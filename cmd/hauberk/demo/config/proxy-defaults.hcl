# HTTP unless a service says otherwise.
Kind = "proxy-defaults"
Name = "global"
Config {
  protocol = "http"
}
