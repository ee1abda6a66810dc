from tests.servers import s3, url

__all__ = ["s3", "url"]
