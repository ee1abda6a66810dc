from tests.servers import azure, s3, url

__all__ = ["azure", "s3", "url"]
